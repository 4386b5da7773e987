// SPDX-License-Identifier: Apache-2.0
// Code for all forms of HTTPDNS: lists of hosts, and names resolved by answer() of query.h. So a client gets the same
// addresses over HTTP as over UDP.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/ip.h"
#include "dns/httpdns/context.h"

namespace tidegate::dns {

// Letters, digits, '-', '_' and dots. These may be in a host, and JSON need not escape them.
bool is_host(std::string_view text);
// The parts between commas; borrows the list.
std::vector<std::string_view> split_list(std::string_view list);

struct Families {
  bool v4 = true;
  bool v6 = false;
};
// "4", "6" or "4,6"; anything else is the default, IPv4.
Families wanted_families(std::string_view list);

// The result of resolving a name in one address family.
struct Resolved {
  enum class Kind : uint8_t {
    found,
    no_data,    // the name has no address of that family
    no_name,    // there is no such name
    foreign,    // not one of our names: the client asks elsewhere
    malformed,  // not a host name
    failed,     // nothing may be answered now
  } kind = Kind::found;
  std::vector<IpAddress> addresses;  // in the order of the answer
  uint32_t ttl_s = 0;
};

// `type` is A or AAAA. The place and network of `client` decide.
Resolved resolve_host(std::string_view host, uint16_t type, const IpAddress& client, const HttpDnsContext& context);
// "a","b": the members of a JSON list.
std::string json_members(const std::vector<IpAddress>& addresses);

}  // namespace tidegate::dns
