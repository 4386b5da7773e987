// SPDX-License-Identifier: Apache-2.0
// Weighted Maglev (Eisenbud et al., NSDI 2016, §3.4): a lookup table of a prime number of slots in which each backend
// holds a share proportional to its weight, and a change of one backend disturbs few slots of the others.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash.h"

namespace tidegate {

struct MaglevMember {
  std::string_view name;  // identity: the permutation depends on it alone, so order and position do not matter
  uint32_t weight = 0;    // 0: not in the table
  uint16_t index = 0;     // what a slot will hold
};

constexpr uint16_t kMaglevEmpty = UINT16_MAX;

// Slots filled with member indexes; all kMaglevEmpty when no member has weight. `slots` must be prime. The same
// members, weights and key give the same table on every host, in whatever order they are listed.
//
// Shares: a member with weight gets at least one slot while there are slots enough; beyond that each gets its ideal
// share, slots * weight / sum of weights, rounded down or up (largest remainder), however large the sum of weights is.
// With fewer slots than members the heaviest get one each.
//
// Cost: two hashes and two divisions a member, then a few probes of a byte map a slot: 65,537 slots in about 1.5 ms.
std::vector<uint16_t> build_maglev(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key);

// The slot of a hash, without a division.
inline uint32_t maglev_slot(uint64_t hash, uint32_t slots) {
  // The upper 32 bits scaled: exact enough for any table, and no wider than 64 bits.
  return static_cast<uint32_t>((hash >> 32) * slots >> 32);
}

}  // namespace tidegate
