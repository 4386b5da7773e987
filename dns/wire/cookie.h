// SPDX-License-Identifier: Apache-2.0
// DNS cookies (RFC 7873) in the interoperable form of RFC 9018: every server with the same secret makes the same server
// cookie, and can verify it without state. Pure; time is an argument.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "core/hash.h"
#include "core/ip.h"
#include "dns/wire/edns.h"

namespace tidegate::dns {

// SipHash-2-4, as RFC 9018 §4.4 requires. The rest of the project uses the faster 1-3.
uint64_t siphash24(const HashKey& key, std::span<const uint8_t> data);

// `now_s` is realtime, modulo 2^32 (RFC 1982 arithmetic).
std::array<uint8_t, kServerCookieBytes> make_server_cookie(const HashKey& secret,
                                                           std::span<const uint8_t, kClientCookieBytes> client_cookie,
                                                           const IpAddress& client, uint32_t now_s);
// True if the cookie is one of ours, for this client, not older than an hour and at most five minutes ahead (RFC 9018
// §4.3).
bool verify_server_cookie(const HashKey& secret, const Edns& edns, const IpAddress& client, uint32_t now_s);

}  // namespace tidegate::dns
