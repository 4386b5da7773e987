// SPDX-License-Identifier: Apache-2.0
// TextTable: numbers found by an owner and a text; flat, with open addressing at a load of at most a half. A short text
// is compared in its slot, so that a look-up in a large, cold table waits for memory once.
//
// Not thread-safe while it is built; immutable, and safe for any number of readers, afterwards.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/hash.h"

namespace tidegate::l7 {

class TextTable {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;

  explicit TextTable(const HashKey& key) : key_(key) {}

  // `value`: not kAbsent. The same owner and text must not be added twice.
  void add(uint32_t owner, std::string_view text, uint32_t value);
  uint32_t find(uint32_t owner, std::string_view text) const;

 private:
  static constexpr size_t kHeadBytes = 12;
  struct alignas(32) Slot {
    uint32_t tag = 0;  // the hash's upper half; its lower bits choose the slot
    uint32_t owner = 0;
    uint32_t value = kAbsent;
    uint32_t bytes = 0;                 // of the text
    std::array<char, kHeadBytes> head;  // its beginning
    uint32_t rest = 0;                  // where what does not fit there begins in rests_
  };

  uint64_t hash(uint32_t owner, std::string_view text) const { return siphash13({key_.k0, key_.k1 ^ owner}, text); }
  void place(uint64_t hash, const Slot& slot);
  void grow();
  bool holds(const Slot& slot, std::string_view text) const;

  HashKey key_;
  std::vector<Slot> slots_;  // a power of two of them, or none
  std::string rests_;
  size_t count_ = 0;
};

}  // namespace tidegate::l7
