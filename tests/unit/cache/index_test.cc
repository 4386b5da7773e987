// SPDX-License-Identifier: Apache-2.0
// The counters of the index, compared with its real content.
#include "cache/index/index.h"

#include <gtest/gtest.h>

#include <random>

#include "cache/serve/flight.h"

namespace tidegate::cache {
namespace {

uint64_t walked(const Index& index) {
  uint64_t sum = 0;
  for (const auto& shard : index.shards()) {
    for (const auto& [key, bucket] : shard->buckets) sum += bucket.entries.size();
  }
  return sum;
}

std::shared_ptr<const StoredObject> object_of(size_t bytes) {
  const std::shared_ptr<char[]> text(new char[bytes]());
  auto head = std::make_shared<StoredHead>();
  head->body_bytes = bytes;
  return std::make_shared<StoredObject>(
      StoredObject{std::move(head), {Slice{text, {text.get(), bytes}}}, nullptr, true});
}

// Publishes, replaces, evicts from memory and erases at random. It uses a few keys with many variants: more than a key
// may have.
TEST(IndexBooks, TellHowManyObjectsThereAreWithoutLookingAtThem) {
  Index index(32 << 20);
  std::minstd_rand random(7);
  std::vector<std::shared_ptr<Entry>> known;
  uint64_t most = 0;
  for (uint64_t generation = 1; generation <= 6000; ++generation) {
    auto entry = std::make_shared<Entry>();
    entry->key = {mix64(random() % 24), 1};
    entry->variant = random() % (2 * kMaxVariants);
    entry->generation = random() % 4 == 0 ? 0 : generation;  // some come too late
    Shard& shard = index.shard(entry->key);
    DeferredRelease deferred;
    if (shard.publish(entry, deferred)) {
      known.push_back(entry);
      shard.hold(*entry, object_of(1 + random() % 200'000), deferred);
    }
    if (random() % 3 == 0) {
      const std::shared_ptr<Entry> victim = known[random() % known.size()];  // it may be gone already
      index.shard(victim->key).erase(*victim, deferred);
    }
    most = std::max(most, index.objects());
    if (generation % 100 != 0) continue;
    ASSERT_EQ(index.objects(), walked(index)) << generation;
  }
  EXPECT_GT(most, 100U);
  for (const auto& entry : known) {
    DeferredRelease deferred;
    index.shard(entry->key).erase(*entry, deferred);
  }
  EXPECT_EQ(walked(index), 0U);
  EXPECT_EQ(index.objects(), 0U);
}

}  // namespace
}  // namespace tidegate::cache
