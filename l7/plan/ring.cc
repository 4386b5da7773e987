// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/ring.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "l7/limits.h"

namespace tidegate::l7 {

HashRing::HashRing(const std::vector<RingMember>& members, const HashKey& key) {
  uint64_t sum = 0;
  for (const RingMember& member : members) sum += member.weight;
  if (sum == 0) return;
  const size_t mean_points = std::clamp<size_t>(kRingPoints / members.size(), 1, kPointsOfMean);
  const double points_of_unit = static_cast<double>(mean_points * members.size()) / static_cast<double>(sum);
  for (size_t i = 0; i < members.size(); ++i) {
    const auto count = std::max<uint64_t>(1, static_cast<uint64_t>(std::llround(members[i].weight * points_of_unit)));
    const uint64_t of_name = siphash13(key, members[i].name);
    for (uint64_t k = 0; k < count; ++k) {
      points_.push_back({mix64(of_name + (k + 1) * 0x9e3779b97f4a7c15ULL), static_cast<uint16_t>(i)});
    }
  }
  // If two members have equal hashes, their order in the list decides. It is the same everywhere.
  std::sort(points_.begin(), points_.end(),
            [](const Point& a, const Point& b) { return a.hash != b.hash ? a.hash < b.hash : a.member < b.member; });
}

size_t HashRing::View::position_of(uint64_t hash) const {
  const auto at = std::lower_bound(points_.begin(), points_.end(), hash,
                                   [](const Point& point, uint64_t wanted) { return point.hash < wanted; });
  return at == points_.end() ? 0 : static_cast<size_t>(at - points_.begin());
}

}  // namespace tidegate::l7
