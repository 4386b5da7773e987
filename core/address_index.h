// SPDX-License-Identifier: Apache-2.0
// AddressIndex: the whole address space of a family, cut into ranges, and a quick way to find an address's range. A
// lookup takes the address's first bits (16 if there are many ranges), and then a short binary search.
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/assert.h"
#include "core/ip.h"

namespace tidegate {

__extension__ using Uint128 = unsigned __int128;

// An address as a number of its family's width, first bit highest.
template <class Bits>
Bits address_bits(const IpAddress& address) {
  Bits bits = 0;
  for (size_t i = 0; i < sizeof(Bits); ++i) bits = static_cast<Bits>(bits << 8 | address.bytes[i]);
  return bits;
}

// `Bits` is uint32_t for IPv4 and Uint128 for IPv6. `Range` is what is kept of each range, at least its first address,
// to which it converts. What is kept beside it is in the same cache line when find() returns.
template <class Bits, class Range = Bits>
class AddressIndex {
 public:
  static constexpr uint8_t kWidth = sizeof(Bits) * 8;

  // The ranges, in order of their first addresses. The first one is 0.
  std::vector<Range>& starts() { return starts_; }
  const std::vector<Range>& starts() const { return starts_; }

  // Call after the last change of starts(), before the first find().
  void finish() {
    TIDEGATE_ASSERT(!starts_.empty() && starts_.front() == 0, "the ranges begin with the first address");
    starts_.shrink_to_fit();
    // A small map needs few tops: an index of 2^16 would take more memory than the map.
    const int top_bits = std::clamp(static_cast<int>(std::bit_width(starts_.size())) + 1, 4, 16);
    shift_ = kWidth - top_bits;
    const size_t tops = size_t{1} << top_bits;
    first_.resize(tops + 1);
    size_t at = 0;
    for (size_t top = 0; top <= tops; ++top) {
      // The range that holds the first address with these top bits; past the last, the last range.
      while (top < tops && at + 1 < starts_.size() && starts_[at + 1] <= static_cast<Bits>(top) << shift_) ++at;
      first_[top] = static_cast<uint32_t>(top == tops ? starts_.size() - 1 : at);
    }
  }

  // The number of the range that holds the address.
  size_t find(Bits address) const {
    const auto top = static_cast<size_t>(address >> shift_);
    uint32_t low = first_[top];       // starts_[low] <= address always
    uint32_t high = first_[top + 1];  // the answer is in [low, high]
    while (low < high) {
      // Both bounds are computed, because no branch predictor can guess the outcome.
      const uint32_t middle = low + (high - low + 1) / 2;
      const bool is_behind = starts_[middle] <= address;
      low = is_behind ? middle : low;
      high = is_behind ? high : middle - 1;
    }
    return low;
  }

  // For a caller that looks up many addresses: the first call loads what find() reads first, the second call what it
  // reads next.
  void prefetch_top(Bits address) const { __builtin_prefetch(&first_[static_cast<size_t>(address >> shift_)]); }
  void prefetch_range(Bits address) const {
    const auto top = static_cast<size_t>(address >> shift_);
    const uint32_t low = first_[top];
    __builtin_prefetch(&starts_[low + (first_[top + 1] - low + 1) / 2]);
  }

 private:
  std::vector<Range> starts_;
  std::vector<uint32_t> first_;  // by an address's top bits
  int shift_ = 0;
};

}  // namespace tidegate
