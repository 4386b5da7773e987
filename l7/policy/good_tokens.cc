// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/good_tokens.h"

#include "core/crypto.h"
#include "l7/limits.h"

namespace tidegate::l7::policy {

GoodTokens::GoodTokens() : high_key_(random_hash_key()), low_key_(random_hash_key()), lines_(kGoodTokens / kWays) {
  static_assert((kGoodTokens & (kGoodTokens - 1)) == 0, "a place is chosen by the lowest bits");
}

// Zero is the mark of an empty place.
GoodTokens::Mark GoodTokens::mark_of(uint64_t basis, std::string_view token) const {
  const uint64_t high[] = {basis, siphash13(high_key_, token)}, low[] = {basis, siphash13(low_key_, token)};
  return {siphash13_words(high_key_, high) | 1, siphash13_words(low_key_, low)};
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
