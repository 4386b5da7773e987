// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/seen_signatures.h"

#include "core/crypto.h"

namespace tidegate::l7::policy {

// Half more than asked for. Then both places of a signature are almost never full before the whole table is.
SeenSignatures::SeenSignatures(size_t room)
    : key_(random_hash_key()), place_key_(random_hash_key()), sets_(room * 3 / 2 / (kShards * kWays) + 1) {
  for (Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    shard.entries.resize(sets_ * kWays);
  }
}

SeenSignatures::Answer SeenSignatures::add(std::string_view signature, uint64_t until_s, uint64_t now_s) {
  const uint64_t hash = siphash13(key_, signature), place = siphash13(place_key_, signature);
  Shard& shard = shards_[place % kShards];
  const size_t sets[] = {place / kShards % sets_, (place >> 36) % sets_};
  const MutexLock lock(shard.mutex);
  Entry* free[] = {nullptr, nullptr};
  size_t empty[] = {0, 0};
  for (size_t s = 0; s < 2; ++s) {
    for (size_t i = sets[s] * kWays; i < (sets[s] + 1) * kWays; ++i) {
      Entry& entry = shard.entries[i];
      if (entry.until_s <= now_s) {
        free[s] = &entry;
        ++empty[s];
      } else if (entry.hash == hash) {
        return Answer::seen;
      }
    }
  }
  Entry* const chosen = free[empty[1] > empty[0] ? 1 : 0];  // the emptier place, so that both fill evenly
  if (chosen == nullptr) return Answer::full;
  *chosen = {hash, until_s};
  return Answer::fresh;
}

}  // namespace tidegate::l7::policy
