// SPDX-License-Identifier: Apache-2.0
// PrefixMap: the whole address space, cut into disjoint prefixes, each with a value. It is built in address order.
// Neighbours with equal values are merged if they form one prefix. AddressIndex finds an address's prefix.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/address_index.h"

namespace tidegate::dns {

template <class Bits>
class PrefixMap {
 public:
  static constexpr uint8_t kWidth = sizeof(Bits) * 8;
  struct Entry {
    uint16_t value = 0;
    uint8_t length = 0;  // length of the prefix
  };

  // Appends the next prefix. It must begin where the last one ended.
  void append(Bits start, uint8_t length, uint16_t value) {
    index_.starts().push_back(start);
    entries_.push_back({value, length});
    while (entries_.size() >= 2 && merge_last_two()) {
    }
  }

  // Call it after the whole space has been appended.
  void finish() {
    index_.finish();
    entries_.shrink_to_fit();
  }

  Entry find(Bits address) const { return entries_[index_.find(address)]; }

  // Calls fn(start, length, value) for the prefixes within one, in address order. If the whole prefix has one value,
  // there is one call with the prefix itself.
  template <class Fn>
  void for_each_within(Bits start, uint8_t length, Fn&& fn) const {
    const std::vector<Bits>& starts = index_.starts();
    size_t at = index_.find(start);
    if (entries_[at].length <= length) return fn(start, length, entries_[at].value);
    const Bits last =
        length == 0 ? static_cast<Bits>(~Bits{0}) : static_cast<Bits>(start | (static_cast<Bits>(~Bits{0}) >> length));
    for (; at < starts.size() && starts[at] <= last; ++at) fn(starts[at], entries_[at].length, entries_[at].value);
  }

  size_t size() const { return index_.starts().size(); }
  // Calls fn(start, length, value) for every prefix, in address order.
  template <class Fn>
  void for_each(Fn&& fn) const {
    for (size_t i = 0; i < size(); ++i) fn(index_.starts()[i], entries_[i].length, entries_[i].value);
  }

 private:
  bool merge_last_two() {
    std::vector<Bits>& starts = index_.starts();
    const size_t last = starts.size() - 1;
    const Entry& right = entries_[last];
    Entry& left = entries_[last - 1];
    if (left.value != right.value || left.length != right.length) return false;
    const Bits bit = Bits{1} << (kWidth - right.length);
    if ((starts[last] ^ starts[last - 1]) != bit) return false;  // neighbours, but not two halves of one prefix
    --left.length;
    starts.pop_back();
    entries_.pop_back();
    return true;
  }

  AddressIndex<Bits> index_;
  std::vector<Entry> entries_;  // parallel to the ranges of `index_`
};

// A set of addresses, stored as the places where membership changes.
template <class Bits>
class AddressSet {
 public:
  // Appends ranges in address order. Each ends where the next one begins.
  void append(Bits start, bool is_member) {
    if (is_member != (changes_.size() % 2 != 0)) changes_.push_back(start);
  }
  bool contains(Bits address) const {
    return (std::upper_bound(changes_.begin(), changes_.end(), address) - changes_.begin()) % 2 != 0;
  }
  // Calls fn(start, is_member) for every range, except a first one without members.
  template <class Fn>
  void for_each(Fn&& fn) const {
    for (size_t i = 0; i < changes_.size(); ++i) fn(changes_[i], i % 2 == 0);
  }

 private:
  std::vector<Bits> changes_;  // starts of members and non-members in turn
};

}  // namespace tidegate::dns
