// SPDX-License-Identifier: Apache-2.0
// The addresses of external names, for steers with targets of type alias. AliasResolver (server/) fills the book. A
// Tables object has a copy of the addresses that it needs.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/ip.h"

namespace tidegate::dns {

struct AliasAddresses {
  // The addresses of one family.
  struct Of {
    bool known = false;  // it was looked up; if there are no addresses, the name has none
    uint32_t ttl_s = 0;
    std::vector<std::array<uint8_t, 16>> addresses;  // IPv4 uses the first four bytes; sorted
    bool operator==(const Of&) const = default;
  };
  Of v4, v6;

  const Of& of(IpAddress::Family family) const { return family == IpAddress::Family::v4 ? v4 : v6; }
  bool operator==(const AliasAddresses&) const = default;
};

// By the alias's name, lower case, with the final dot.
using AliasBook = std::map<std::string, AliasAddresses>;

}  // namespace tidegate::dns
