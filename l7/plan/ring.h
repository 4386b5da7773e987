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

  struct Point {
    uint64_t hash;
    uint16_t member;
  };
  // Borrows a ring.
  class View {
   public:
    View() = default;
    View(const HashRing& ring) : points_(ring.points_) {}  // NOLINT(google-explicit-constructor)

    bool empty() const { return points_.empty(); }
    size_t size() const { return points_.size(); }
    // The position of the first point at or after the hash.
    size_t position_of(uint64_t hash) const;
    // The member of a point, as its index in the ring's list.
    uint16_t member_at(size_t position) const { return points_[position % points_.size()].member; }

   private:
    std::span<const Point> points_;
  };

  HashRing() = default;
  HashRing(const std::vector<RingMember>& members, const HashKey& key);

 private:
  std::vector<Point> points_;  // sorted by hash
};

}  // namespace tidegate::l7
