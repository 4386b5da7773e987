// SPDX-License-Identifier: Apache-2.0
// EDNS (RFC 6891): the OPT record of a query and of its answer, with the supported options: NSID (RFC 5001), client
// subnet (RFC 7871), cookies (RFC 7873), extended errors (RFC 8914). Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "core/ip.h"
#include "dns/wire/outcome.h"
#include "dns/wire/wire.h"

namespace tidegate::dns {

namespace edns_option {
constexpr uint16_t kNsid = 3, kClientSubnet = 8, kCookie = 10, kExtendedError = 15;
}  // namespace edns_option

struct ClientSubnet {
  uint16_t family = 0;  // 1: IPv4, 2: IPv6; 0 only with an empty prefix
  uint8_t source_prefix = 0;
  IpAddress address;  // bits past the prefix are zero
};

constexpr size_t kClientCookieBytes = 8;
constexpr size_t kServerCookieBytes = 16;  // RFC 9018 §4: version, reserved, timestamp, hash

// The content of a query's OPT record.
struct Edns {
  uint16_t payload_bytes = kMinUdpPayload;
  uint8_t version = 0;
  bool dnssec_ok = false;
  bool wants_nsid = false;
  bool has_cookie = false;
  bool has_subnet = false;
  uint8_t server_cookie_bytes = 0;
  std::array<uint8_t, kClientCookieBytes> client_cookie;  // only with has_cookie
  std::array<uint8_t, 32> server_cookie;                  // the first server_cookie_bytes are set
  ClientSubnet subnet;                                    // only with has_subnet
};

// Reads OPT's class, TTL and RDATA. Returns nullopt if it is well formed, otherwise why it is not.
std::optional<QueryOutcome> parse_opt(uint16_t payload_bytes, uint32_t ttl, std::span<const uint8_t> rdata, Edns& edns);

// The content of the answer's OPT record.
struct OptReply {
  bool nsid = false;
  bool cookie = false;
  bool subnet = false;
  uint8_t scope_prefix = 0;
  ExtendedError error = ExtendedError::none;
  std::string_view error_text;  // details of the error; left out if it does not fit
  std::array<uint8_t, kServerCookieBytes> server_cookie{};
};

// The most bytes that the answer's OPT record can have, before its scope and error are known, and without the error's
// text.
size_t max_opt_bytes(const Edns& edns, std::string_view nsid);
// Writes it at `out`, which has room for `room` bytes, at least max_opt_bytes(). Returns its length.
size_t write_opt(uint8_t* out, size_t room, const Edns& edns, const OptReply& reply, Rcode rcode,
                 std::string_view nsid);

}  // namespace tidegate::dns
