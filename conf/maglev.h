// SPDX-License-Identifier: Apache-2.0
// Weighted Maglev (Eisenbud et al., NSDI 2016, §3.4): a lookup table with a prime number of slots. Each backend holds a
// share of slots proportional to its weight. A change of one backend moves few slots of the others.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash.h"

namespace tidegate {

struct MaglevMember {
  std::string_view name;  // the permutation depends only on this, so order and position do not matter
  uint32_t weight = 0;    // 0: not in the table
  uint16_t index = 0;     // the value to store in its slots
};

constexpr uint16_t kMaglevEmpty = UINT16_MAX;

// Returns the slots, filled with member indexes; all are kMaglevEmpty if no member has weight. `slots` must be prime.
// The same members, weights and key give the same table on every host, in any order of the list.
//
// Shares: A member with weight gets at least one slot if there are enough slots. Otherwise each gets its ideal share,
// slots * weight / sum of weights, rounded down or up (largest remainder). This holds for any sum of weights. If there
// are fewer slots than members, the heaviest members get one each.
//
// Cost: two hashes and two divisions per member, then a few probes of a byte map per slot: 65,537 slots in about 1.5
// ms. `slot_of_turn`, if given, receives the slots in the order in which they were given away.
std::vector<uint16_t> build_maglev(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key,
                                   std::vector<uint32_t>* slot_of_turn = nullptr);

// A member's permutation of the slots: first_slot, first_slot + skip, ... modulo the slots. `rank_hash` orders members.
struct MaglevPermutation {
  uint64_t rank_hash = 0;
  uint32_t first_slot = 0, skip = 0;
};
MaglevPermutation maglev_permutation(std::string_view name, uint32_t slots, const HashKey& key);

// The slot for a hash, computed without a division.
inline uint32_t maglev_slot(uint64_t hash, uint32_t slots) {
  // Scales the upper 32 bits: exact enough for any table, and no wider than 64 bits.
  return static_cast<uint32_t>((hash >> 32) * slots >> 32);
}

}  // namespace tidegate
