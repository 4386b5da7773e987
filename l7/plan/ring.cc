// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/ring.h"

#include <algorithm>
#include <bit>
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
      const uint64_t hash = mix64(of_name + (k + 1) * 0x9e3779b97f4a7c15ULL);
      points_.push_back(hash >> kMemberBits << kMemberBits | static_cast<uint16_t>(i));
    }
  }
  // If two members have equal hashes, their order in the list decides. It is the same everywhere.
  std::sort(points_.begin(), points_.end());
  const int bits = std::max(1, static_cast<int>(std::bit_width(points_.size())) - 1);
  shift_ = 64 - bits;
  index_.resize(size_t{1} << bits);
  size_t at = 0;
  for (size_t upper = 0; upper < index_.size(); ++upper) {
    while (at < points_.size() && points_[at] >> shift_ < upper) ++at;
    index_[upper] = static_cast<uint32_t>(at);
  }
}

}  // namespace tidegate::l7
