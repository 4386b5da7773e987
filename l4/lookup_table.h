// SPDX-License-Identifier: Apache-2.0
// LookupTable: an immutable map from a packet's address and port to a number. It uses open addressing at a load of at
// most a quarter. Its content comes from the configuration, so its hash needs no key: a packet can ask for a missing
// entry, but it cannot make a probe longer.
#pragma once

#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/hash.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

struct LookupKey {
  AddressWords address;
  uint64_t rest = 0;
  bool operator==(const LookupKey&) const = default;

  static LookupKey of_address(uint8_t family, const AddressWords& address) {
    return {address, static_cast<uint64_t>(family) << 32};
  }
  static LookupKey of_service(uint8_t family, const AddressWords& vip, uint8_t protocol, uint16_t port_be) {
    return {vip, rest_of_service(family, protocol, port_be)};
  }
  static uint64_t rest_of_service(uint8_t family, uint8_t protocol, uint16_t port_be) {
    return static_cast<uint64_t>(family) << 32 | static_cast<uint64_t>(protocol) << 16 | port_be;
  }
};

class LookupTable {
 public:
  static constexpr uint32_t kAbsent = UINT32_MAX;

  LookupTable() : LookupTable(std::vector<std::pair<LookupKey, uint32_t>>{}) {}
  // If keys are equal, the first one counts.
  explicit LookupTable(const std::vector<std::pair<LookupKey, uint32_t>>& entries)
      : slots_(std::bit_ceil(entries.size() * 4 + 4)) {
    for (const auto& [key, value] : entries) {
      Slot& slot = slots_[position(key)];
      if (slot.value == kAbsent) slot = {key, value};
    }
  }

  uint32_t find(const LookupKey& key) const { return slots_[position(key)].value; }

 private:
  struct Slot {
    LookupKey key;
    uint32_t value = kAbsent;
  };

  // The position of the key, or of the free slot where it would be. The search ends because most slots are free.
  size_t position(const LookupKey& key) const {
    const size_t mask = slots_.size() - 1;
    size_t at = mix64(key.address.a ^ mix64(key.address.b ^ mix64(key.rest))) & mask;
    while (slots_[at].value != kAbsent && !(slots_[at].key == key)) at = (at + 1) & mask;
    return at;
  }

  std::vector<Slot> slots_;
};

}  // namespace tidegate::l4
