// SPDX-License-Identifier: Apache-2.0
// Frames for tests, written field by field and independent of the code that reads them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/ip.h"
#include "l4/wire.h"

namespace tidegate::l4::testing {

using Bytes = std::vector<uint8_t>;

inline const Mac kOurMac = {{0x02, 0, 0, 0, 0, 0x01}};
inline const Mac kRouterMac = {{0x02, 0, 0, 0, 0, 0xfe}};

inline IpAddress ip(const std::string& text) { return IpAddress::parse(text).value(); }

inline void append_be16(Bytes& out, size_t value) {
  out.push_back(static_cast<uint8_t>(value >> 8));
  out.push_back(static_cast<uint8_t>(value));
}

inline void append_address(Bytes& out, const IpAddress& address) {
  out.insert(out.end(), address.bytes.begin(), address.bytes.begin() + static_cast<ptrdiff_t>(address.size()));
}

inline void append(Bytes& out, const Bytes& more) { out.insert(out.end(), more.begin(), more.end()); }

inline Bytes ethernet(uint16_t ether_type, const Bytes& payload, const Mac& to = kOurMac,
                      const Mac& from = kRouterMac) {
  Bytes out(to.bytes.begin(), to.bytes.end());
  out.insert(out.end(), from.bytes.begin(), from.bytes.end());
  append_be16(out, ether_type);
  append(out, payload);
  return out;
}

inline Bytes tcp(uint16_t source_port, uint16_t destination_port, uint8_t flags, const std::string& payload = "") {
  Bytes out;
  append_be16(out, source_port);
  append_be16(out, destination_port);
  out.insert(out.end(), 8, 0);  // sequence, acknowledgement
  out.push_back(5 << 4);
  out.push_back(flags);
  out.insert(out.end(), 6, 0);  // window, checksum, urgent
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

inline Bytes udp(uint16_t source_port, uint16_t destination_port, const std::string& payload = "data") {
  Bytes out;
  append_be16(out, source_port);
  append_be16(out, destination_port);
  append_be16(out, 8 + payload.size());
  append_be16(out, 0);
  out.insert(out.end(), payload.begin(), payload.end());
  return out;
}

struct Ip4Options {
  Bytes options;                // the caller pads it to a multiple of four
  uint16_t fragment_field = 0;  // flags and offset
  uint16_t id = 0;
  uint8_t ttl = 61;
};

inline Bytes ip4(const IpAddress& source, const IpAddress& destination, uint8_t protocol, const Bytes& payload,
                 const Ip4Options& more = {}) {
  Bytes out;
  const size_t header_bytes = 20 + more.options.size();
  out.push_back(static_cast<uint8_t>(0x40 | header_bytes / 4));
  out.push_back(0);
  append_be16(out, header_bytes + payload.size());
  append_be16(out, more.id);
  append_be16(out, more.fragment_field);
  out.push_back(more.ttl);
  out.push_back(protocol);
  append_be16(out, 0);
  append_address(out, source);
  append_address(out, destination);
  append(out, more.options);
  const uint16_t checksum = checksum_finish(checksum_add(out.data(), header_bytes, 0));
  store_be16(out.data() + 10, checksum);
  append(out, payload);
  return out;
}

// `next` and `payload` may begin with extension headers.
inline Bytes ip6(const IpAddress& source, const IpAddress& destination, uint8_t next, const Bytes& payload,
                 uint8_t hop_limit = 61) {
  Bytes out = {0x60, 0, 0, 0};
  append_be16(out, payload.size());
  out.push_back(next);
  out.push_back(hop_limit);
  append_address(out, source);
  append_address(out, destination);
  append(out, payload);
  return out;
}

inline Bytes packet(const std::string& source, const std::string& destination, uint8_t protocol, const Bytes& payload) {
  const IpAddress from = ip(source), to = ip(destination);
  return from.is_v4() ? ethernet(kEtherTypeIp4, ip4(from, to, protocol, payload))
                      : ethernet(kEtherTypeIp6, ip6(from, to, protocol, payload));
}

inline Bytes tcp_frame(const std::string& source, uint16_t source_port, const std::string& destination,
                       uint16_t destination_port, uint8_t flags, const std::string& payload = "") {
  return packet(source, destination, kProtocolTcp, tcp(source_port, destination_port, flags, payload));
}

inline Bytes udp_frame(const std::string& source, uint16_t source_port, const std::string& destination,
                       uint16_t destination_port, const std::string& payload = "data") {
  return packet(source, destination, kProtocolUdp, udp(source_port, destination_port, payload));
}

// Type, code, rest of header, body; the checksum is right for the family.
inline Bytes icmp4(uint8_t type, uint8_t code, const Bytes& body, uint32_t rest = 0) {
  Bytes out = {type, code, 0, 0};
  append_be16(out, rest >> 16);
  append_be16(out, rest & 0xffff);
  append(out, body);
  store_be16(out.data() + 2, checksum_finish(checksum_add(out.data(), out.size(), 0)));
  return out;
}

inline Bytes icmp6_packet(const IpAddress& source, const IpAddress& destination, uint8_t type,
                          const Bytes& rest_and_body, uint8_t hop_limit = 61) {
  Bytes icmp = {type, 0, 0, 0};
  append(icmp, rest_and_body);
  Bytes out = ip6(source, destination, kProtocolIcmp6, icmp, hop_limit);
  store_be16(out.data() + 42, icmp6_checksum(out.data(), out.data() + 40, icmp.size()));
  return out;
}

inline Bytes arp(uint16_t operation, const Mac& sender_mac, const std::string& sender, const Mac& target_mac,
                 const std::string& target, const Mac& to) {
  Bytes out = {0, 1, 8, 0, 6, 4};
  append_be16(out, operation);
  out.insert(out.end(), sender_mac.bytes.begin(), sender_mac.bytes.end());
  append_address(out, ip(sender));
  out.insert(out.end(), target_mac.bytes.begin(), target_mac.bytes.end());
  append_address(out, ip(target));
  Bytes frame = ethernet(kEtherTypeArp, out, to, sender_mac);
  frame.resize(60);
  return frame;
}

}  // namespace tidegate::l4::testing
