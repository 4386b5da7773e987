// SPDX-License-Identifier: Apache-2.0
#include "dns/xdp/frame.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace tidegate::dns {
namespace {

constexpr size_t kEthernetBytes = 14, kIpv4Bytes = 20, kIpv6Bytes = 40, kUdpBytes = 8;
constexpr uint16_t kTypeIpv4 = 0x0800, kTypeIpv6 = 0x86dd;
constexpr uint8_t kUdp = 17;
constexpr uint8_t kHopLimit = 64;                   // RFC 1700's default, like the kernel's
constexpr uint16_t kAnyFragment = 0xbfff;           // everything but "don't fragment": more, reserved, offset
constexpr size_t kMacBytes = 6;                     // offsets: destination, then source, then the type
constexpr size_t kUdpLength = 4, kUdpChecksum = 6;  // offsets in UDP's header

struct Ipv4Header {
  static constexpr size_t kService = 1, kLength = 2, kId = 4, kFragment = 6, kTtl = 8, kProtocol = 9, kChecksum = 10;
  static constexpr size_t kSource = 12, kAddressBytes = 4;
};
struct Ipv6Header {
  static constexpr size_t kPayload = 4, kNext = 6, kHops = 7;
  static constexpr size_t kSource = 8, kAddressBytes = 16;
};

// Facts of the IP header about its UDP datagram: the length, and the sum of the addresses.
struct Carrier {
  size_t udp_bytes = 0;
  uint64_t addresses_sum = 0;
};

FrameFault parse_ipv4(std::span<const uint8_t> packet, QueryFrame& query, Carrier& carrier) {
  using H = Ipv4Header;
  if (packet.size() < kIpv4Bytes + kUdpBytes) return FrameFault::wrong_length;
  if (packet[0] != 0x45 || packet[H::kProtocol] != kUdp) return FrameFault::not_plain_udp;
  if ((load_u16(&packet[H::kFragment]) & kAnyFragment) != 0) return FrameFault::not_plain_udp;
  if (finish_checksum(add_to_checksum(0, packet.first(kIpv4Bytes))) != 0) return FrameFault::wrong_checksum;
  const size_t total = load_u16(&packet[H::kLength]);
  if (total < kIpv4Bytes || total > packet.size()) return FrameFault::wrong_length;
  carrier.udp_bytes = total - kIpv4Bytes;
  carrier.addresses_sum = add_to_checksum(0, packet.subspan(H::kSource, 2 * H::kAddressBytes));
  uint32_t source;
  std::memcpy(&source, &packet[H::kSource], sizeof source);
  query.client = IpAddress::v4(source);
  return FrameFault::none;
}

FrameFault parse_ipv6(std::span<const uint8_t> packet, QueryFrame& query, Carrier& carrier) {
  using H = Ipv6Header;
  if (packet.size() < kIpv6Bytes + kUdpBytes) return FrameFault::wrong_length;
  if (packet[0] >> 4 != 6 || packet[H::kNext] != kUdp) return FrameFault::not_plain_udp;
  carrier.udp_bytes = load_u16(&packet[H::kPayload]);
  if (carrier.udp_bytes > packet.size() - kIpv6Bytes) return FrameFault::wrong_length;
  carrier.addresses_sum = add_to_checksum(0, packet.subspan(H::kSource, 2 * H::kAddressBytes));
  query.client = IpAddress::v6(&packet[H::kSource]).unmapped();
  return FrameFault::none;
}

// In addition to the addresses, RFC 768's pseudo header has a word for the length and one for the protocol.
uint64_t add_pseudo_header(uint64_t addresses_sum, size_t udp_bytes) {
  std::array<uint8_t, 4> rest;
  store_u16(&rest[0], static_cast<uint16_t>(udp_bytes));
  store_u16(&rest[2], kUdp);
  return add_to_checksum(addresses_sum, rest);
}

bool checksum_holds(std::span<const uint8_t> udp, uint64_t addresses_sum, bool v4) {
  uint16_t sent;
  std::memcpy(&sent, &udp[kUdpChecksum], sizeof sent);
  if (sent == 0) return v4;  // there is no checksum, which IPv6 forbids (RFC 8200 §8.1)
  const uint64_t pseudo = add_pseudo_header(addresses_sum, udp.size());
  if (finish_checksum(add_to_checksum(pseudo, udp)) == 0) return true;
  return sent == static_cast<uint16_t>(~finish_checksum(pseudo));  // only the pseudo header's sum
}

// Exchanges source and destination.
void swap_sides(uint8_t* first, size_t bytes) { std::swap_ranges(first, first + bytes, first + bytes); }

uint64_t turn_ipv4(uint8_t* packet, size_t udp_bytes, uint16_t identification) {
  using H = Ipv4Header;
  packet[H::kService] = 0;
  store_u16(packet + H::kLength, static_cast<uint16_t>(kIpv4Bytes + udp_bytes));
  store_u16(packet + H::kId, identification);
  store_u16(packet + H::kFragment, 0);  // it may be fragmented on its way, like answers of the kernel's socket
  packet[H::kTtl] = kHopLimit;
  swap_sides(packet + H::kSource, H::kAddressBytes);
  store_u16(packet + H::kChecksum, 0);
  const uint16_t checksum = finish_checksum(add_to_checksum(0, {packet, kIpv4Bytes}));
  std::memcpy(packet + H::kChecksum, &checksum, sizeof checksum);
  return add_to_checksum(0, {packet + H::kSource, 2 * H::kAddressBytes});
}

uint64_t turn_ipv6(uint8_t* packet, size_t udp_bytes) {
  using H = Ipv6Header;
  store_u32(packet, 0x60000000);  // no traffic class, no flow label
  store_u16(packet + H::kPayload, static_cast<uint16_t>(udp_bytes));
  packet[H::kHops] = kHopLimit;
  swap_sides(packet + H::kSource, H::kAddressBytes);
  return add_to_checksum(0, {packet + H::kSource, 2 * H::kAddressBytes});
}

}  // namespace

FrameFault parse_query_frame(std::span<const uint8_t> frame, QueryFrame& query) {
  if (frame.size() < kEthernetBytes) return FrameFault::wrong_length;
  const uint16_t type = load_u16(&frame[2 * kMacBytes]);
  const std::span<const uint8_t> packet = frame.subspan(kEthernetBytes);
  Carrier carrier;
  FrameFault fault = FrameFault::not_plain_udp;
  if (type == kTypeIpv4) fault = parse_ipv4(packet, query, carrier);
  if (type == kTypeIpv6) fault = parse_ipv6(packet, query, carrier);
  if (fault != FrameFault::none) return fault;
  query.headers_bytes = kEthernetBytes + (type == kTypeIpv4 ? kIpv4Bytes : kIpv6Bytes) + kUdpBytes;
  const uint8_t* udp = &frame[query.headers_bytes - kUdpBytes];
  const size_t udp_bytes = carrier.udp_bytes;
  if (udp_bytes < kUdpBytes || load_u16(udp + kUdpLength) != udp_bytes) return FrameFault::wrong_length;
  if (!checksum_holds({udp, udp_bytes}, carrier.addresses_sum, type == kTypeIpv4))
    return FrameFault::wrong_udp_checksum;
  if (load_u16(udp) == 0) return FrameFault::source_port_zero;
  query.query_bytes = udp_bytes - kUdpBytes;
  return FrameFault::none;
}

size_t turn_into_answer(uint8_t* frame, const QueryFrame& query, size_t answer_bytes, uint16_t identification) {
  const bool v4 = query.headers_bytes == kEthernetBytes + kIpv4Bytes + kUdpBytes;
  const size_t udp_bytes = kUdpBytes + answer_bytes;
  uint8_t* packet = frame + kEthernetBytes;
  uint8_t* udp = frame + query.headers_bytes - kUdpBytes;
  swap_sides(frame, kMacBytes);
  swap_sides(udp, sizeof(uint16_t));
  store_u16(udp + kUdpLength, static_cast<uint16_t>(udp_bytes));
  store_u16(udp + kUdpChecksum, 0);
  uint64_t sum = v4 ? turn_ipv4(packet, udp_bytes, identification) : turn_ipv6(packet, udp_bytes);
  sum = add_to_checksum(add_pseudo_header(sum, udp_bytes), {udp, udp_bytes});
  uint16_t checksum = finish_checksum(sum);
  if (checksum == 0) checksum = 0xffff;  // zero means no checksum (RFC 768)
  std::memcpy(udp + kUdpChecksum, &checksum, sizeof checksum);
  return query.headers_bytes + answer_bytes;
}

uint64_t add_to_checksum(uint64_t sum, std::span<const uint8_t> bytes) {
  size_t at = 0;
  for (; at + sizeof(uint32_t) <= bytes.size(); at += sizeof(uint32_t)) {
    uint32_t words;
    std::memcpy(&words, &bytes[at], sizeof words);
    sum += words;
  }
  if (at < bytes.size()) {
    uint32_t rest = 0;
    std::memcpy(&rest, &bytes[at], bytes.size() - at);
    sum += rest;
  }
  return sum;
}

uint16_t finish_checksum(uint64_t sum) {
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  return static_cast<uint16_t>(~sum);
}

}  // namespace tidegate::dns
