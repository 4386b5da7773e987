// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/seen_signatures.h"

#include <utility>

#include "core/assert.h"
#include "core/crypto.h"

namespace tidegate::l7::policy {

SeenSignatures::SeenSignatures(std::shared_ptr<TableMemory> memory)
    : memory_(std::move(memory)),
      head_(*static_cast<Head*>(memory_->data())),
      entries_(reinterpret_cast<Entry*>(&head_ + 1)),
      sets_((memory_->bytes() - sizeof(Head)) / sizeof(Entry) / (kShards * kWays)) {
  TIDEGATE_ASSERT(sets_ > 1, "a signature has two different places");
  if (head_.made != 0) return;
  head_.key = random_hash_key();
  head_.place_key = random_hash_key();
  for (Lock& lock : head_.locks) lock.mutex.make();
  head_.made = 1;
}

SeenSignatures::Answer SeenSignatures::add(std::string_view signature, uint64_t until_s, uint64_t now_s) {
  const uint64_t hash = siphash13(head_.key, signature), place = siphash13(head_.place_key, signature);
  const size_t shard = place % kShards;
  Entry* const entries = entries_ + shard * sets_ * kWays;
  const size_t first = place / kShards % sets_;
  const size_t sets[] = {first, (first + 1 + (place >> 36) % (sets_ - 1)) % sets_};
  const SharedMutexLock lock(head_.locks[shard].mutex);
  Entry* free[] = {nullptr, nullptr};
  size_t empty[] = {0, 0};
  for (size_t s = 0; s < 2; ++s) {
    for (size_t i = sets[s] * kWays; i < (sets[s] + 1) * kWays; ++i) {
      Entry& entry = entries[i];
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
