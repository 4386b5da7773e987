// SPDX-License-Identifier: Apache-2.0
// The counters of the index, compared with its real content.
#include "cache/index/index.h"

#include <gtest/gtest.h>

#include <random>

#include "cache/serve/flight.h"

namespace tidegate::cache::index_test {

uint64_t walked(const Index& index) {
  uint64_t sum = 0;
  for (const auto& shard : index.shards()) {
    const MutexLock lock(shard->mutex);
    for (const auto& [key, bucket] : shard->buckets) sum += bucket.entries.size();
  }
  return sum;
}

void erase(Index& index, Entry& entry, DeferredRelease& deferred) {
  Shard& shard = index.shard(entry.key);
  const MutexLock lock(shard.mutex);
  shard.erase(entry, deferred);
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
    entry->variant = random() % (4 * kVariantsOfAnySize);
    entry->stored_bytes = random() % (8 << 20);
    entry->generation = random() % 4 == 0 ? 0 : generation;  // some come too late
    Shard& shard = index.shard(entry->key);
    DeferredRelease deferred;
    {
      const MutexLock lock(shard.mutex);
      if (shard.publish(entry, deferred)) {
        known.push_back(entry);
        shard.hold(*entry, object_of(1 + random() % 200'000), deferred);
      }
    }
    if (random() % 3 == 0) erase(index, *known[random() % known.size()], deferred);  // it may be gone already
    most = std::max(most, index.objects());
    if (generation % 100 != 0) continue;
    ASSERT_EQ(index.objects(), walked(index)) << generation;
  }
  EXPECT_GT(most, 100U);
  for (const auto& entry : known) {
    DeferredRelease deferred;
    erase(index, *entry, deferred);
  }
  EXPECT_EQ(walked(index), 0U);
  EXPECT_EQ(index.objects(), 0U);
}

TEST(IndexVariants, LargeOnesOfOneKeyShareTheirBytesAndThoseInUseStay) {
  constexpr uint64_t kLarge = 250'000, kCount = 400;
  Index index(1 << 20);
  const KeyHash key{1, 1};
  Shard& shard = index.shard(key);
  std::vector<std::shared_ptr<Entry>> entries;
  DeferredRelease deferred;
  const MutexLock lock(shard.mutex);
  for (uint64_t i = 0; i < kCount; ++i) {
    auto entry = std::make_shared<Entry>();
    entry->key = key;
    entry->variant = entry->generation = i + 1;
    entry->stored_bytes = kLarge;
    ASSERT_TRUE(shard.publish(entry, deferred));
    entries.push_back(std::move(entry));
    entries[0]->touch();  // a hit
  }
  const auto& stayed = shard.find(key)->entries;
  EXPECT_LE(stayed.size() * kLarge, kManyVariantsBytes);
  EXPECT_GT((stayed.size() + 1) * kLarge, kManyVariantsBytes);
  EXPECT_EQ(deferred.evicted_variants, kCount - stayed.size());
  EXPECT_EQ(stayed.front(), entries.front()) << "in use";
  EXPECT_EQ(stayed.back(), entries.back()) << "the newest";
  EXPECT_EQ(stayed[1], entries[kCount - stayed.size() + 1]) << "the oldest left first";
  // Only few large variants are allowed.
  const KeyHash other{1, 2};
  for (uint64_t i = 0; i <= kVariantsOfAnySize; ++i) {
    auto entry = std::make_shared<Entry>();
    entry->key = other;
    entry->variant = entry->generation = i + 1;
    entry->stored_bytes = kManyVariantsBytes;
    ASSERT_TRUE(shard.publish(entry, deferred));
  }
  EXPECT_EQ(shard.find(other)->entries.size(), kVariantsOfAnySize);
  // Even with small bodies, no key has more than kMaxVariants.
  const KeyHash many{1, 3};
  for (uint64_t i = 0; i < kMaxVariants + 10; ++i) {
    auto entry = std::make_shared<Entry>();
    entry->key = many;
    entry->variant = entry->generation = i + 1;
    ASSERT_TRUE(shard.publish(entry, deferred));
  }
  EXPECT_EQ(shard.find(many)->entries.size(), kMaxVariants);
}

}  // namespace tidegate::cache::index_test
