// SPDX-License-Identifier: Apache-2.0
#include "cache/index/index.h"

#include <algorithm>
#include <bit>

#include "cache/serve/flight.h"
#include "core/assert.h"

namespace tidegate::cache {

Bucket* Shard::find(const KeyHash& key) {
  const auto found = buckets.find(key);
  return found == buckets.end() ? nullptr : &found->second;
}

std::shared_ptr<Entry> Shard::match(const HashKeys& keys, const Bucket& bucket, Fields request_fields,
                                    std::string& scratch) {
  std::shared_ptr<Entry> newest;
  const std::string* vary = nullptr;  // the Vary that `variant` belongs to; the entries of a key mostly share one
  uint64_t variant = 0;
  for (const auto& entry : bucket.entries) {
    if (vary == nullptr || *vary != entry->vary) {
      vary = &entry->vary;
      vary_values(entry->vary, request_fields, scratch);
      variant = variant_hash(keys, entry->vary, scratch);
    }
    const bool selected = entry->variant == variant;
    if (selected && (newest == nullptr || entry->generation > newest->generation)) newest = entry;
  }
  return newest;
}

bool Shard::publish(std::shared_ptr<Entry> entry, DeferredRelease& deferred) {
  TIDEGATE_ASSERT(entry != nullptr, "there is an entry to publish");
  Bucket& bucket = buckets[entry->key];
  for (const auto& existing : bucket.entries) {
    if (existing->variant != entry->variant) continue;
    if (existing->generation >= entry->generation) return false;
    const std::shared_ptr<Entry> replaced = existing;
    erase(*replaced, deferred);
    break;
  }
  Bucket& place = buckets[entry->key];  // erase may have dropped the bucket
  if (place.entries.size() >= kMaxVariants) {
    // The oldest variant without a hit is evicted. So a flood of new variants cannot displace those in use.
    const auto unused = std::find_if(place.entries.begin(), place.entries.end(), [](const auto& candidate) {
      return candidate->uses.load(std::memory_order_relaxed) == 0;
    });
    const std::shared_ptr<Entry> victim = unused != place.entries.end() ? *unused : place.entries.front();
    erase(*victim, deferred);
  }
  place.last_vary = entry->vary;
  place.entries.push_back(std::move(entry));
  ++objects;
  return true;
}

void Shard::hold(Entry& entry, std::shared_ptr<const StoredObject> object, DeferredRelease& deferred) {
  TIDEGATE_ASSERT(object != nullptr && object->head != nullptr, "an entry holds an object with a head");
  release_object(entry, deferred);
  entry.in_use = object;
  const uint64_t bytes = object->memory_bytes();
  if (bytes > ram.capacity() / 4 && entry.disk != nullptr) return;  // one object must not empty the shard
  entry.object = std::move(object);
  entry.bytes = bytes;
  entry.identity = entry.key.low ^ mix64(entry.variant);
  ram.insert(entry);
  while (ram.over_capacity()) {
    auto* victim = static_cast<Entry*>(ram.evict_one());
    if (victim == nullptr) return;
    ++deferred.evicted_from_ram;
    deferred.objects.push_back(std::move(victim->object));
    victim->object = nullptr;
    if (victim->disk == nullptr && victim != &entry) erase(*victim, deferred);
  }
}

void Shard::release_object(Entry& entry, DeferredRelease& deferred) {
  ram.erase(entry);
  if (entry.object != nullptr) deferred.objects.push_back(std::move(entry.object));
  entry.object = nullptr;
}

void Shard::erase(Entry& entry, DeferredRelease& deferred) {
  release_object(entry, deferred);
  if (entry.disk != nullptr) deferred.retired.push_back({entry.key, entry.variant, std::move(entry.disk)});
  entry.disk = nullptr;
  Bucket* bucket = find(entry.key);
  if (bucket == nullptr) return;
  const KeyHash key = entry.key;
  const size_t erased =
      std::erase_if(bucket->entries, [&](const auto& candidate) { return candidate.get() == &entry; });
  TIDEGATE_ASSERT(erased <= 1 && objects >= erased, "an entry is counted once");
  objects -= erased;
  drop_if_empty(key);
}

void Shard::erase_flight(const KeyHash& key, const Flight* flight) {
  Bucket* bucket = find(key);
  if (bucket == nullptr) return;
  std::erase_if(bucket->flights, [&](const auto& candidate) { return candidate.get() == flight; });
  drop_if_empty(key);
}

void Shard::drop_if_empty(const KeyHash& key) {
  const auto found = buckets.find(key);
  if (found != buckets.end() && found->second.empty()) buckets.erase(found);
}

Index::Index(uint64_t ram_bytes) {
  constexpr uint64_t kShardBytes = 4 << 20;  // so large that a resident object is a small part of it
  const uint64_t count = std::bit_floor(std::clamp<uint64_t>(ram_bytes / kShardBytes, 1, 64));
  for (uint64_t i = 0; i < count; ++i) shards_.push_back(std::make_unique<Shard>(ram_bytes / count));
}

uint64_t Index::ram_bytes() const {
  uint64_t sum = 0;
  for (const auto& shard : shards_) {
    const MutexLock lock(shard->mutex);
    sum += shard->ram.bytes();
  }
  return sum;
}

uint64_t Index::objects() const {
  uint64_t sum = 0;
  for (const auto& shard : shards_) {
    const MutexLock lock(shard->mutex);
    sum += shard->objects;
  }
  return sum;
}

}  // namespace tidegate::cache
