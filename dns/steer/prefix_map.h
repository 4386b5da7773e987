// SPDX-License-Identifier: Apache-2.0
// PrefixMap: the whole address space, cut into disjoint prefixes, each with a value. It is built in address order.
// Neighbours with equal values are merged if they form one prefix. A lookup takes the address's first bits (16 in a
// large map), and then a short binary search.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstdint>
#include <vector>

#include "core/ip.h"

namespace tidegate::dns {

__extension__ using Uint128 = unsigned __int128;

// An address as a number of its family's width, first bit highest.
template <class Bits>
Bits address_bits(const IpAddress& address) {
  Bits bits = 0;
  for (size_t i = 0; i < sizeof(Bits); ++i) bits = static_cast<Bits>(bits << 8 | address.bytes[i]);
  return bits;
}

template <class Bits>
class PrefixMap {
 public:
  static constexpr uint8_t kWidth = sizeof(Bits) * 8;
  struct Entry {
    uint16_t value = 0;
    uint8_t length = 0;  // of the prefix
  };

  // The next prefix: begins where the last one ended.
  void append(Bits start, uint8_t length, uint16_t value) {
    starts_.push_back(start);
    entries_.push_back({value, length});
    while (starts_.size() >= 2 && merge_last_two()) {
    }
  }

  // Once the whole space has been appended.
  void finish() {
    assert(!starts_.empty() && starts_.front() == 0);
    starts_.shrink_to_fit();
    entries_.shrink_to_fit();
    // A small map needs few tops: an index of 2^16 would take more memory than the map.
    const int top_bits = std::clamp(static_cast<int>(std::bit_width(starts_.size())) + 1, 4, 16);
    shift_ = kWidth - top_bits;
    const size_t tops = size_t{1} << top_bits;
    first_.resize(tops + 1);
    size_t at = 0;
    for (size_t top = 0; top <= tops; ++top) {
      // The entry that holds the first address with these top bits; past the last, the number of entries.
      while (top < tops && at + 1 < starts_.size() && starts_[at + 1] <= static_cast<Bits>(top) << shift_) ++at;
      first_[top] = static_cast<uint32_t>(top == tops ? starts_.size() - 1 : at);
    }
  }

  Entry find(Bits address) const { return entries_[index_of(address)]; }

  // fn(start, length, value) of the prefixes within one, in address order. The first and only one is the prefix itself
  // if all of it has one value.
  template <class Fn>
  void for_each_within(Bits start, uint8_t length, Fn&& fn) const {
    size_t at = index_of(start);
    if (entries_[at].length <= length) return fn(start, length, entries_[at].value);
    const Bits last =
        length == 0 ? static_cast<Bits>(~Bits{0}) : static_cast<Bits>(start | (static_cast<Bits>(~Bits{0}) >> length));
    for (; at < starts_.size() && starts_[at] <= last; ++at) fn(starts_[at], entries_[at].length, entries_[at].value);
  }

  size_t size() const { return starts_.size(); }
  // fn(start, length, value) of every prefix, in address order.
  template <class Fn>
  void for_each(Fn&& fn) const {
    for (size_t i = 0; i < starts_.size(); ++i) fn(starts_[i], entries_[i].length, entries_[i].value);
  }

 private:
  size_t index_of(Bits address) const {
    const auto top = static_cast<size_t>(address >> shift_);
    uint32_t low = first_[top];       // starts_[low] <= address always
    uint32_t high = first_[top + 1];  // the answer is in [low, high]
    while (low < high) {
      const uint32_t middle = low + (high - low + 1) / 2;
      if (starts_[middle] <= address) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  bool merge_last_two() {
    const size_t last = starts_.size() - 1;
    const Entry& right = entries_[last];
    Entry& left = entries_[last - 1];
    if (left.value != right.value || left.length != right.length) return false;
    const Bits bit = Bits{1} << (kWidth - right.length);
    if ((starts_[last] ^ starts_[last - 1]) != bit) return false;  // neighbours, but not two halves of one prefix
    --left.length;
    starts_.pop_back();
    entries_.pop_back();
    return true;
  }

  std::vector<Bits> starts_;
  std::vector<Entry> entries_;
  std::vector<uint32_t> first_;  // by an address's top bits
  int shift_ = 0;
};

// Which addresses belong to a set, as the places where that changes.
template <class Bits>
class AddressSet {
 public:
  // Ranges in address order; each ends where the next one begins.
  void append(Bits start, bool is_member) {
    if (is_member != (changes_.size() % 2 != 0)) changes_.push_back(start);
  }
  bool contains(Bits address) const {
    return (std::upper_bound(changes_.begin(), changes_.end(), address) - changes_.begin()) % 2 != 0;
  }
  // fn(start, is_member) of every range but a first one without members.
  template <class Fn>
  void for_each(Fn&& fn) const {
    for (size_t i = 0; i < changes_.size(); ++i) fn(changes_[i], i % 2 == 0);
  }

 private:
  std::vector<Bits> changes_;  // in and out by turns
};

}  // namespace tidegate::dns
