// SPDX-License-Identifier: Apache-2.0
#include "cache/index/index.h"

#include <algorithm>
#include <bit>

#include "cache/serve/flight.h"
#include "core/assert.h"

namespace tidegate::cache {
namespace {

// Drops a Vary that no entry of the bucket has any more.
void forget_vary(Bucket& bucket, const std::string& vary) {
  const auto has_it = [&vary](const auto& entry) { return entry->vary == vary; };
  if (std::none_of(bucket.entries.begin(), bucket.entries.end(), has_it)) std::erase(bucket.varies, vary);
}

// A key in another bucket of the same shard. No request has this key.
KeyHash coded_key(const KeyHash& key, uint64_t variant, Coding coding) {
  return {key.high, key.low ^ mix64(variant ^ (uint64_t{0xc0ded} << 8 | static_cast<uint64_t>(coding)))};
}

}  // namespace

Bucket* Shard::find(const KeyHash& key) {
  const auto found = buckets.find(key);
  return found == buckets.end() ? nullptr : &found->second;
}

std::shared_ptr<Entry> Shard::match(const HashKeys& keys, const Bucket& bucket, const RequestView& request,
                                    std::string& scratch) {
  std::shared_ptr<Entry> newest;
  for (const std::string& vary : bucket.varies) {
    vary_values(vary, request, scratch);
    const uint64_t variant = variant_hash(keys, vary, scratch);
    for (size_t i = 0; i < bucket.variants.size(); ++i) {
      if (bucket.variants[i] != variant) continue;
      const auto& entry = bucket.entries[i];
      if (entry->vary == vary && (newest == nullptr || entry->generation > newest->generation)) newest = entry;
    }
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
  make_room_for_variant(entry->key, entry->stored_bytes, deferred);
  Bucket& place = buckets[entry->key];  // erase may have dropped the bucket
  place.last_vary = entry->vary;
  if (std::find(place.varies.begin(), place.varies.end(), entry->vary) == place.varies.end()) {
    place.varies.push_back(entry->vary);
  }
  place.variants.push_back(entry->variant);
  place.bytes += entry->stored_bytes;
  place.entries.push_back(std::move(entry));
  ++objects;
  return true;
}

// The oldest variant that is not used leaves first. A variant that was used since the last check stays for one more
// round. So a flood of new variants cannot displace those in use.
void Shard::make_room_for_variant(const KeyHash& key, uint64_t bytes, DeferredRelease& deferred) {
  for (;;) {
    Bucket* const bucket = find(key);
    if (bucket == nullptr) return;
    const size_t count = bucket->entries.size();
    const bool fits =
        count < kVariantsOfAnySize || (count < kMaxVariants && bucket->bytes + bytes <= kManyVariantsBytes);
    if (fits) return;
    std::shared_ptr<Entry> victim;
    for (const auto& candidate : bucket->entries) {
      const uint8_t uses = candidate->uses.load(std::memory_order_relaxed);
      if (uses == 0) {
        victim = candidate;
        break;
      }
      candidate->uses.store(static_cast<uint8_t>(uses - 1), std::memory_order_relaxed);
    }
    if (victim == nullptr) victim = bucket->entries.front();
    ++deferred.evicted_variants;
    erase(*victim, deferred);
  }
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
  if (!entry.coded) erase_coded(entry.key, entry.variant, deferred);
  if (entry.disk != nullptr) deferred.retired.push_back({entry.key, entry.variant, std::move(entry.disk)});
  entry.disk = nullptr;
  Bucket* bucket = find(entry.key);
  if (bucket == nullptr) return;
  const KeyHash key = entry.key;
  for (size_t i = 0; i < bucket->entries.size(); ++i) {
    if (bucket->entries[i].get() != &entry) continue;
    uint64_t& count = entry.coded ? coded : objects;
    TIDEGATE_ASSERT(count > 0 && bucket->bytes >= entry.stored_bytes, "an entry is counted once");
    bucket->bytes -= entry.stored_bytes;
    --count;
    bucket->variants.erase(bucket->variants.begin() + static_cast<std::ptrdiff_t>(i));
    const std::shared_ptr<Entry> keep = std::move(bucket->entries[i]);  // until the bucket is in order again
    bucket->entries.erase(bucket->entries.begin() + static_cast<std::ptrdiff_t>(i));
    forget_vary(*bucket, keep->vary);
    break;
  }
  drop_if_empty(key);
}

std::shared_ptr<Entry> Shard::coded_entry(const KeyHash& key, uint64_t variant, Coding coding) {
  if (coded == 0) return nullptr;
  const Bucket* const bucket = find(coded_key(key, variant, coding));
  return bucket == nullptr || bucket->entries.empty() ? nullptr : bucket->entries.front();
}

std::shared_ptr<const StoredObject> Shard::find_coded(const KeyHash& key, uint64_t variant, Coding coding,
                                                      uint64_t generation) {
  const std::shared_ptr<Entry> entry = coded_entry(key, variant, coding);
  if (entry == nullptr || entry->generation != generation) return nullptr;
  entry->touch();
  return entry->object;
}

bool Shard::keep_coded(const KeyHash& key, uint64_t variant, Coding coding, uint64_t generation,
                       std::shared_ptr<const StoredObject> object, DeferredRelease& deferred) {
  const Bucket* const of = find(key);
  const auto is_it = [&](const std::shared_ptr<Entry>& entry) {
    return entry->variant == variant && entry->generation == generation;
  };
  if (of == nullptr || std::none_of(of->entries.begin(), of->entries.end(), is_it)) return false;
  if (object->memory_bytes() > ram.capacity() / 4) return false;  // one object must not empty the shard
  if (const std::shared_ptr<Entry> before = coded_entry(key, variant, coding)) erase(*before, deferred);
  const auto entry = std::make_shared<Entry>();
  entry->key = coded_key(key, variant, coding);
  entry->generation = generation;
  entry->coded = true;
  Bucket& place = buckets[entry->key];
  place.entries.push_back(entry);
  place.variants.push_back(0);
  place.varies.emplace_back();
  ++coded;
  hold(*entry, std::move(object), deferred);
  if (entry->object != nullptr) return true;
  erase(*entry, deferred);  // the objects that are there are used more
  return false;
}

void Shard::move_coded(const KeyHash& key, uint64_t variant, uint64_t from, uint64_t to) {
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    const std::shared_ptr<Entry> entry = coded_entry(key, variant, coding);
    if (entry != nullptr && entry->generation == from) entry->generation = to;
  }
}

void Shard::erase_coded(const KeyHash& key, uint64_t variant, DeferredRelease& deferred) {
  for (const Coding coding : {Coding::gzip, Coding::br, Coding::zstd}) {
    if (const std::shared_ptr<Entry> entry = coded_entry(key, variant, coding)) erase(*entry, deferred);
  }
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

uint64_t Index::coded() const {
  uint64_t sum = 0;
  for (const auto& shard : shards_) {
    const MutexLock lock(shard->mutex);
    sum += shard->coded;
  }
  return sum;
}

}  // namespace tidegate::cache
