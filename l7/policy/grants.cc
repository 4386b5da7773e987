// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/grants.h"

#include <algorithm>

#include "core/crypto.h"
#include "l7/limits.h"

namespace tidegate::l7::policy {

Grants::Grants(size_t entries)
    : first_key_(random_hash_key()),
      second_key_(random_hash_key()),
      sets_(std::max<size_t>(1, entries / (kShards * kWays))) {
  for (Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    shard.entries.resize(sets_ * kWays);
  }
}

Grants::Place Grants::place_of(std::string_view told) const {
  const uint64_t first = siphash13(first_key_, told), second = siphash13(second_key_, told);
  return {first, second, first % kShards, first / kShards % sets_ * kWays};
}

std::optional<std::string_view> Grants::find(std::string_view told, uint64_t now_ns, Arena& arena) const {
  const Place place = place_of(told);
  const Shard& shard = shards_[place.shard];
  const MutexLock lock(shard.mutex);
  for (size_t i = place.begin; i < place.begin + kWays; ++i) {
    const Entry& entry = shard.entries[i];
    if (entry.until_ns > now_ns && entry.first == place.first && entry.second == place.second) {
      return arena.copy(entry.grant);
    }
  }
  return std::nullopt;
}

bool Grants::add(std::string_view told, std::string_view grant, uint64_t until_ns) {
  if (grant.size() > kGrantBytes) return false;
  const Place place = place_of(told);
  Shard& shard = shards_[place.shard];
  const MutexLock lock(shard.mutex);
  Entry* chosen = &shard.entries[place.begin];
  for (size_t i = place.begin; i < place.begin + kWays; ++i) {
    Entry& entry = shard.entries[i];
    if (entry.first == place.first && entry.second == place.second) {
      chosen = &entry;
      break;
    }
    if (entry.until_ns < chosen->until_ns) chosen = &entry;
  }
  chosen->first = place.first;
  chosen->second = place.second;
  chosen->until_ns = until_ns;
  chosen->grant.assign(grant);
  return true;
}

}  // namespace tidegate::l7::policy
