// SPDX-License-Identifier: Apache-2.0
// The ways to divide a lookup table's slots among members, behind one interface, from modulo to bounded load. The
// forwarder uses weighted Maglev (maglev.h). The others are here to be compared with it, by `tidegate hash-lab`.
//
// All take the same members and give the same kind of table: for each slot the index of a member, or kMaglevEmpty if no
// member has weight. All but `minimal` depend only on their arguments, and not on the order of the members.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "conf/maglev.h"

namespace tidegate {

enum class HashScheme : uint8_t {
  modulo,      // slot number modulo the number of members: a change moves nearly everything
  jump,        // Lamping and Veach 2014: moves little when the last member comes or goes, much when another one does
  ring,        // Karger et al. 1997: points on a circle, kRingPoints for a member of mean weight
  bounded,     // Mirrokni et al. 2018: a ring on which no member gets more than kBound of its share
  rendezvous,  // Thaler and Ravishankar 1998: the highest score wins; weights after Schindelhauer and Schomaker 2005
  maglev,      // Eisenbud et al. 2016
  minimal,     // the previous table, with as few moves as exact shares allow; it depends on the previous table
};
constexpr std::array kHashSchemes = {HashScheme::modulo,  HashScheme::jump,       HashScheme::ring,
                                     HashScheme::bounded, HashScheme::rendezvous, HashScheme::maglev,
                                     HashScheme::minimal};
std::string_view name(HashScheme scheme);

constexpr uint32_t kRingPoints = 160;
constexpr double kBound = 1.05;

// `slots` is a prime for maglev. Only `minimal` reads `before`: a table with the same number of slots, or empty. Member
// indexes must differ. Cost: slots * members for rendezvous, otherwise about slots.
std::vector<uint16_t> build_slots(HashScheme scheme, const std::vector<MaglevMember>& members, uint32_t slots,
                                  const HashKey& key, const std::vector<uint16_t>& before = {});

// The bytes of the structure that answers a lookup by the scheme itself: a table of slots, points, or members.
size_t lookup_bytes(HashScheme scheme, const std::vector<MaglevMember>& members, uint32_t slots);

// Jump consistent hash: the bucket of `hash` among `buckets`, which is at least 1.
uint32_t jump_bucket(uint64_t hash, uint32_t buckets);

// The cost of a change of members, and the fairness of the table. All fractions are of the slots.
struct HashReport {
  HashScheme scheme = HashScheme::modulo;
  double share_error = 0;   // the largest relative error of a member's share
  double add_moves = 0;     // one more member of mean weight: the slots that moved, minus those that it must get
  double remove_moves = 0;  // one member less: the slots that moved, minus those that it had
  double weight_moves = 0;  // the weight of one member halved: the slots that moved, minus those that it must give up
  uint64_t build_ns = 0;
  size_t bytes = 0;
};

// Empty if fewer than two members have weight.
std::vector<HashReport> compare_hashes(const std::vector<MaglevMember>& members, uint32_t slots, const HashKey& key);

}  // namespace tidegate
