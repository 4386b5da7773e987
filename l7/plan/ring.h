// SPDX-License-Identifier: Apache-2.0
// HashRing: consistent hashing on a ring (Karger et al., 1997). Each member has points in proportion to its weight, and
// a key belongs to the first point at or after its own hash. If a member leaves, only its keys move, each to the next
// point's member. Immutable.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/hash.h"

namespace tidegate::l7 {

struct RingMember {
  std::string_view name;  // unique among the members
  uint32_t weight;        // greater than 0
};

class HashRing {
 public:
  // points of a member of mean weight; shares are then exact within about 8 %
  static constexpr size_t kPointsOfMean = 160;

  // Borrows a ring.
  class View {
   public:
    View() = default;
    View(const HashRing& ring)  // NOLINT(google-explicit-constructor)
        : points_(ring.points_), index_(ring.index_), shift_(ring.shift_) {}

    bool empty() const { return points_.empty(); }
    size_t size() const { return points_.size(); }
    // The position of the first point at or after the hash. The index gives the first point that can be it. There is
    // about one point for each entry of the index, so few follow before it.
    size_t position_of(uint64_t hash) const {
      size_t at = index_[hash >> shift_];
      while (at < points_.size() && points_[at] >> kMemberBits < hash >> kMemberBits) ++at;
      return at == points_.size() ? 0 : at;
    }
    // The member of a point, as its index in the ring's list.
    uint16_t member_at(size_t position) const { return static_cast<uint16_t>(points_[position % points_.size()]); }

   private:
    std::span<const uint64_t> points_;
    std::span<const uint32_t> index_;
    int shift_ = 0;
  };

  HashRing() = default;
  HashRing(const std::vector<RingMember>& members, const HashKey& key);

 private:
  // The upper 48 bits of a point's hash, then 16 bits for its member.
  static constexpr int kMemberBits = 16;
  std::vector<uint64_t> points_;  // sorted
  std::vector<uint32_t> index_;   // by the upper bits of a hash: the position of the first point with these or higher
  int shift_ = 0;                 // 64 less the number of those bits
};

}  // namespace tidegate::l7
