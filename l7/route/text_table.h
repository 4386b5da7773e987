// SPDX-License-Identifier: Apache-2.0
// TextTable: a hash table whose key is an owner's number and a text, and whose value is a number. It uses open
// addressing and is at most half full. A short text is in the slot itself. So a lookup in a large table that is not in
// the CPU's cache waits for memory only once.
//
// Threads: one thread builds it. After that it is immutable, and any thread may read it.
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

  // `value`: must not be kAbsent. The same owner and text must not be added twice.
  void add(uint32_t owner, std::string_view text, uint32_t value);
  uint32_t find(uint32_t owner, std::string_view text) const;

 private:
  static constexpr size_t kHeadBytes = 12;
  struct alignas(32) Slot {
    uint32_t tag = 0;  // the hash's upper half; its lower bits choose the slot
    uint32_t owner = 0;
    uint32_t value = kAbsent;
    uint32_t bytes = 0;                 // length of the text
    std::array<char, kHeadBytes> head;  // its beginning
    uint32_t rest = 0;                  // where the rest of the text begins in rests_
  };

  uint64_t hash(uint32_t owner, std::string_view text) const { return siphash13({key_.k0, key_.k1 ^ owner}, text); }
  void place(uint64_t hash, const Slot& slot);
  void grow();
  bool holds(const Slot& slot, std::string_view text) const;

  HashKey key_;
  std::vector<Slot> slots_;  // their number is a power of two, or 0
  std::string rests_;
  size_t count_ = 0;
};

}  // namespace tidegate::l7
