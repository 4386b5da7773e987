// SPDX-License-Identifier: Apache-2.0
#include "dns/wire/edns.h"

#include <algorithm>

namespace tidegate::dns {
namespace {

constexpr size_t kOptFixedBytes = 11;     // root name, type, class, TTL, RDLENGTH
constexpr size_t kOptionHeaderBytes = 4;  // code and length
constexpr uint32_t kDnssecOkBit = 0x8000;

// RFC 7871 §6 and §7.1.2: a wrong number of bytes, bits past the prefix and unknown families are malformed.
bool parse_subnet(std::span<const uint8_t> data, ClientSubnet& subnet) {
  if (data.size() < 4) return false;
  subnet.family = load_u16(data.data());
  subnet.source_prefix = data[2];
  const uint8_t scope_prefix = data[3];
  if (scope_prefix != 0) return false;  // MUST be zero in a query
  const auto address = data.subspan(4);
  if (address.size() != (subnet.source_prefix + size_t{7}) / 8) return false;
  if (subnet.family == 0) return subnet.source_prefix == 0;
  if (subnet.family > 2) return false;
  subnet.address.family = subnet.family == 1 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  subnet.address.bytes = {};
  if (subnet.source_prefix > subnet.address.max_prefix()) return false;
  std::memcpy(subnet.address.bytes.data(), address.data(), address.size());
  const int loose_bits = static_cast<int>(address.size()) * 8 - subnet.source_prefix;
  return loose_bits == 0 || (address.back() & ((1 << loose_bits) - 1)) == 0;
}

// RFC 7873 §4: eight bytes from the client, then none, or 8 to 32 bytes of an earlier server cookie.
bool parse_cookie(std::span<const uint8_t> data, Edns& edns) {
  if (data.size() < kClientCookieBytes || data.size() > 40) return false;
  const size_t server_bytes = data.size() - kClientCookieBytes;
  if (server_bytes != 0 && server_bytes < 8) return false;
  std::memcpy(edns.client_cookie.data(), data.data(), kClientCookieBytes);
  if (server_bytes != 0) std::memcpy(edns.server_cookie.data(), data.data() + kClientCookieBytes, server_bytes);
  edns.server_cookie_bytes = static_cast<uint8_t>(server_bytes);
  return true;
}

uint8_t* put_option(uint8_t* out, uint16_t code, size_t bytes) {
  store_u16(out, code);
  store_u16(out + 2, static_cast<uint16_t>(bytes));
  return out + kOptionHeaderBytes;
}

size_t subnet_bytes(const ClientSubnet& subnet) { return 4 + (subnet.source_prefix + size_t{7}) / 8; }

}  // namespace

std::optional<QueryOutcome> parse_opt(uint16_t payload_bytes, uint32_t ttl, std::span<const uint8_t> rdata,
                                      Edns& edns) {
  edns.payload_bytes = payload_bytes;
  edns.version = static_cast<uint8_t>(ttl >> 16);
  edns.dnssec_ok = (ttl & kDnssecOkBit) != 0;
  while (!rdata.empty()) {
    if (rdata.size() < kOptionHeaderBytes) return QueryOutcome::bad_edns;
    const uint16_t code = load_u16(rdata.data());
    const size_t bytes = load_u16(rdata.data() + 2);
    if (rdata.size() - kOptionHeaderBytes < bytes) return QueryOutcome::bad_edns;
    const auto data = rdata.subspan(kOptionHeaderBytes, bytes);
    rdata = rdata.subspan(kOptionHeaderBytes + bytes);
    switch (code) {
      case edns_option::kNsid:
        edns.wants_nsid = true;
        break;
      case edns_option::kClientSubnet:
        if (edns.has_subnet || !parse_subnet(data, edns.subnet)) return QueryOutcome::bad_ecs;
        edns.has_subnet = true;
        break;
      case edns_option::kCookie:
        if (edns.has_cookie) break;  // RFC 7873 §5.2: only the first counts
        if (!parse_cookie(data, edns)) return QueryOutcome::bad_cookie;
        edns.has_cookie = true;
        break;
      default:
        break;  // RFC 6891 §6.1.2: unknown options are ignored
    }
  }
  return std::nullopt;
}

size_t max_opt_bytes(const Edns& edns, std::string_view nsid) {
  size_t bytes = kOptFixedBytes + kOptionHeaderBytes + 2;  // an extended error
  if (edns.wants_nsid) bytes += kOptionHeaderBytes + nsid.size();
  if (edns.has_subnet) bytes += kOptionHeaderBytes + subnet_bytes(edns.subnet);
  if (edns.has_cookie) bytes += kOptionHeaderBytes + kClientCookieBytes + kServerCookieBytes;
  return bytes;
}

size_t write_opt(uint8_t* out, size_t room, const Edns& edns, const OptReply& reply, Rcode rcode,
                 std::string_view nsid) {
  out[0] = 0;
  store_u16(out + 1, rrtype::kOpt);
  store_u16(out + 3, kMaxUdpPayload);
  const auto extended_rcode = static_cast<uint32_t>(rcode) >> 4;
  store_u32(out + 5, extended_rcode << 24 | (edns.dnssec_ok ? kDnssecOkBit : 0));
  uint8_t* at = out + kOptFixedBytes;
  if (reply.nsid && !nsid.empty()) {
    at = put_option(at, edns_option::kNsid, nsid.size());
    std::memcpy(at, nsid.data(), nsid.size());
    at += nsid.size();
  }
  if (reply.subnet) {  // RFC 7871 §7.2.1: family, source and address are returned unchanged
    const size_t bytes = subnet_bytes(edns.subnet);
    at = put_option(at, edns_option::kClientSubnet, bytes);
    store_u16(at, edns.subnet.family);
    at[2] = edns.subnet.source_prefix;
    at[3] = reply.scope_prefix;
    std::memcpy(at + 4, edns.subnet.address.bytes.data(), bytes - 4);
    at += bytes;
  }
  if (reply.cookie) {
    at = put_option(at, edns_option::kCookie, kClientCookieBytes + kServerCookieBytes);
    std::memcpy(at, edns.client_cookie.data(), kClientCookieBytes);
    std::memcpy(at + kClientCookieBytes, reply.server_cookie.data(), kServerCookieBytes);
    at += kClientCookieBytes + kServerCookieBytes;
  }
  if (reply.error != ExtendedError::none) {
    const size_t used_bytes = static_cast<size_t>(at - out) + kOptionHeaderBytes + 2;
    const std::string_view text = used_bytes + reply.error_text.size() <= room ? reply.error_text : std::string_view();
    at = put_option(at, edns_option::kExtendedError, 2 + text.size());
    store_u16(at, static_cast<uint16_t>(reply.error));
    std::copy(text.begin(), text.end(), at + 2);  // UTF-8, no terminating zero (RFC 8914 §2)
    at += 2 + text.size();
  }
  store_u16(out + 9, static_cast<uint16_t>(at - out - kOptFixedBytes));
  return static_cast<size_t>(at - out);
}

}  // namespace tidegate::dns
