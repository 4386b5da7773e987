// SPDX-License-Identifier: Apache-2.0
// SourceLists: which lists of clients an address is in, for all lists at once. The address space is cut into ranges
// whose addresses are in the same lists. So one lookup answers for every service, however many lists it uses.
// Immutable; any thread may ask.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/address_index.h"
#include "core/result.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

class SourceLists {
 public:
  // A set of lists by number. Set 0 is the empty one.
  using Set = uint16_t;
  static constexpr size_t kMostSets = size_t{UINT16_MAX} + 1;

  // `lists[i]`: the networks of list i, which may overlap. Returns an Error if there are more than 65,536 different
  // sets.
  static Result<std::shared_ptr<const SourceLists>> build(const std::vector<std::vector<Cidr>>& lists);

  Set find(uint8_t family, const AddressWords& address) const {
    return family == 4 ? v4_.starts()[v4_.find(bits_v4(address))].set : v6_.starts()[v6_.find(bits_v6(address))].set;
  }
  // For a burst: call prefetch_first() for each address, then the second prefetch for each, then find().
  void prefetch_first(uint8_t family, const AddressWords& address) const {
    family == 4 ? v4_.prefetch_top(bits_v4(address)) : v6_.prefetch_top(bits_v6(address));
  }
  void prefetch_second(uint8_t family, const AddressWords& address) const {
    family == 4 ? v4_.prefetch_range(bits_v4(address)) : v6_.prefetch_range(bits_v6(address));
  }
  // The lists of each set, in order.
  const std::vector<std::vector<uint16_t>>& sets() const { return sets_; }
  size_t ranges() const { return v4_.starts().size() + v6_.starts().size(); }

 private:
  // Addresses from `start` on are in the lists of `set`. Eight bytes for IPv4, 24 for IPv6.
  template <class Bits>
  struct [[gnu::packed]] alignas(8) Range {
    Bits start;
    Set set;
    operator Bits() const { return start; }
  };
  template <class Bits>
  using Ranges = AddressIndex<Bits, Range<Bits>>;
  static uint32_t bits_v4(const AddressWords& address) { return __builtin_bswap32(static_cast<uint32_t>(address.a)); }
  static Uint128 bits_v6(const AddressWords& address) {
    return Uint128{__builtin_bswap64(address.a)} << 64 | __builtin_bswap64(address.b);
  }
  class Compiler;

  Ranges<uint32_t> v4_;
  Ranges<Uint128> v6_;
  std::vector<std::vector<uint16_t>> sets_;
};

}  // namespace tidegate::l4
