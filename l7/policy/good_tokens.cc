// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/good_tokens.h"

#include "core/crypto.h"
#include "core/hash128.h"
#include "l7/limits.h"

namespace tidegate::l7::policy {

GoodTokens::GoodTokens() : key_(random_hash_key()), lines_(kGoodTokens / kWays) {
  static_assert((kGoodTokens & (kGoodTokens - 1)) == 0, "a place is chosen by the lowest bits");
}

// Zero marks an empty place.
GoodTokens::Mark GoodTokens::mark_of(uint64_t basis, std::string_view token) const {
  const Hash128 hash = siphash13_128({key_.k0 ^ basis, key_.k1}, token);
  return {hash.high | 1, hash.low};
}

bool GoodTokens::has(uint64_t basis, std::string_view token) const {
  const Mark mark = mark_of(basis, token);
  for (const Place& place : lines_[mark.low & (lines_.size() - 1)].places) {
    if (place.high.load(std::memory_order_relaxed) == mark.high &&
        place.low.load(std::memory_order_relaxed) == mark.low) {
      return true;
    }
  }
  return false;
}

void GoodTokens::add(uint64_t basis, std::string_view token) {
  const Mark mark = mark_of(basis, token);
  Line& line = lines_[mark.low & (lines_.size() - 1)];
  Place* chosen = &line.places[mark.high >> 8 & (kWays - 1)];
  for (Place& place : line.places) {
    if (place.high.load(std::memory_order_relaxed) == 0) chosen = &place;
  }
  chosen->high.store(mark.high, std::memory_order_relaxed);
  chosen->low.store(mark.low, std::memory_order_relaxed);
}

}  // namespace tidegate::l7::policy
