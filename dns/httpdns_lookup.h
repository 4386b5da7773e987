// SPDX-License-Identifier: Apache-2.0
// What the forms of HTTPDNS share: hosts, accounts, lifetimes of signatures, and names resolved by query.h's answer(),
// so that a client hears over HTTP what it would hear over UDP.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dns/httpdns.h"
#include "dns/query.h"

namespace tidegate::dns {

// Letters, digits, '-', '_' and dots: what a host has, and nothing that JSON would have to escape.
bool is_host(std::string_view text);
// The parts between commas; borrows the list.
std::vector<std::string_view> split_list(std::string_view list);

// Null: there is none of that id.
const HttpDnsAccount* find_account(const Model& model, std::string_view id);
// True: `matches(secret)` holds for one of the account's secrets.
template <class Fn>
bool any_secret(const HttpDnsAccount& account, Fn&& matches) {
  bool any = matches(account.secret);
  for (const std::string& secret : account.other_secrets) any = matches(secret) || any;
  return any;
}
// Whether a signature that ends at `expiry` (epoch seconds, as text) is to be looked at now.
HttpDnsError check_expiry(std::string_view expiry, uint64_t now_s);

struct Families {
  bool v4 = true;
  bool v6 = false;
};
// "4", "6" or "4,6"; anything else is the default, IPv4.
Families wanted_families(std::string_view list);

// What a name resolves to, for one address family.
struct Resolved {
  enum class Kind : uint8_t {
    found,
    no_data,    // the name has no address of that family
    no_name,    // there is no such name
    foreign,    // not a name of ours: the client asks somebody else
    malformed,  // no host name
    failed,     // nothing may be answered now
  } kind = Kind::found;
  std::string addresses;  // "a","b" as a JSON list has them
  uint32_t ttl_s = 0;
};

// `type` is A or AAAA; `scratch` has room for one DNS answer.
Resolved resolve_host(std::string_view host, uint16_t type, const IpAddress& client, const Tables& tables,
                      Worker& worker, std::span<uint8_t> scratch);

}  // namespace tidegate::dns
