// SPDX-License-Identifier: Apache-2.0
#include "l4/tunnel.h"

#include <algorithm>
#include <cstring>

#include "conf/model/service.h"
#include "l4/second_hop.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kIcmpErrorBytes = 8, kGueBytes = 4;
constexpr uint8_t kFragmentationNeeded = 4, kTooBig6 = 2, kHopLimit = 64;
constexpr uint8_t kIp6Fragment = 44;
// RFC 1812 §4.3.2.3: an error quotes as much as fits into 576 bytes. RFC 4443 §3.2: into 1,280 bytes.
constexpr size_t kMostError4 = 576, kMostError6 = 1'280;
constexpr uint32_t kLeastMtu4 = 68, kLeastMtu6 = 1'280;                 // RFC 791 §3.2, RFC 8200 §5
constexpr uint16_t kFirstDynamicPort = 49'152, kDynamicPorts = 16'384;  // RFC 6335 §6

size_t packet_bytes(const uint8_t* ip) {
  return ip[0] >> 4 == 4 ? load_be16(ip + 2) : kIp6HeaderBytes + load_be16(ip + 4);
}

// RFC 6040 §4.1: DSCP and ECN are those of the inner packet.
uint8_t traffic_class(const uint8_t* ip) {
  return ip[0] >> 4 == 4 ? ip[1] : static_cast<uint8_t>(load_be16(ip) >> 4 & 0xff);
}

// Copies 16 to 80 bytes. They are copied in pieces of 16, of which the last ones overlap, because a copy of unknown
// length takes longer than all the rest of the work.
inline void copy_header(uint8_t* to, const uint8_t* from, size_t bytes) {
  constexpr size_t kPiece = 16;
  static_assert(kIp4HeaderBytes >= kPiece && Action::kMostHeaderBytes <= 5 * kPiece);
  const auto copy = [&](size_t at) { std::memcpy(to + at, from + at, kPiece); };
  copy(0);
  copy(bytes - kPiece);
  if (bytes <= 2 * kPiece) return;
  copy(kPiece);
  copy(bytes - 2 * kPiece);
  if (bytes > 4 * kPiece) copy(2 * kPiece);
}

// Values that do not depend on the packet are read from the template. To read them from `outer` would wait for the
// stores that have just been made there.
inline void finish_ip4(const Action& action, uint8_t* outer, size_t bytes, uint8_t tos, uint32_t flow) {
  const uint32_t varied = flow & action.varied;
  outer[1] = tos;
  store_be16(outer + 2, static_cast<uint16_t>(bytes));
  store_be32(outer + 12, load_be32(action.header + 12) | varied);
  // The template's varied bits are zero, so the sum only grows.
  const uint32_t sum = action.sum + tos + static_cast<uint32_t>(bytes) + (varied >> 16) + (varied & 0xffff);
  store_be16(outer + 10, checksum_finish(sum));
}

inline void finish_ip6(const Action& action, uint8_t* outer, size_t bytes, uint8_t traffic, uint32_t flow) {
  // The flow label distinguishes flows (RFC 6438).
  store_be32(outer, uint32_t{6} << 28 | uint32_t{traffic} << 20 | (flow & 0xfffff));
  store_be16(outer + 4, static_cast<uint16_t>(bytes - kIp6HeaderBytes));
  store_be32(outer + 20, load_be32(action.header + 20) | (flow & action.varied));
}

// The longest outer packet.
inline uint32_t outer_mtu(const Action& action, uint32_t link_mtu) {
  return action.path_mtu == 0 ? link_mtu : std::min<uint32_t>(action.path_mtu, link_mtu);
}

// The length of the outer header.
uint32_t outer_bytes(const Action& action, const Action* second) {
  const bool longer = second != nullptr && action.mode == Forwarding::gue;
  return static_cast<uint32_t>(action.header_bytes + (longer ? second_hop_bytes(second->outer_family) : 0));
}

// Call it after finish_ip4(), because the template's identification is 0.
void name_second_by_id(const Action& second, uint8_t* outer) {
  const uint16_t id = second_hop_id(second.header + 16);
  store_be16(outer + 4, id);
  store_be16(outer + 10, checksum_update(load_be16(outer + 10), 0, id));
}

// `end` is where the template's GUE header of four bytes ends.
void add_second_hop(const Action& second, uint8_t* end) {
  const bool v4 = second.outer_family == 4;
  write_second_hop(end, second.outer_family, second.header + (v4 ? 16 : 24));
  *(end - kGueBytes) = static_cast<uint8_t>(second_hop_bytes(second.outer_family) / 4);  // Hlen, in words
}

bool may_be_told4(const uint8_t* ip) {
  const uint16_t fragment = load_be16(ip + 6);
  return (fragment & 0x4000) != 0 && (fragment & 0x1fff) == 0 && ip[9] != kProtocolIcmp;
}

// Errors are never answered by errors (RFC 4443 §2.4). Of ICMPv6, only errors are forwarded to a backend.
bool may_be_told6(const uint8_t* ip) { return ip[6] != kProtocolIcmp6 && ip[6] != kIp6Fragment; }

void turn_round(Frame& frame, size_t l3_offset) {
  uint8_t* ethernet = frame.data;
  for (size_t i = 0; i < 6; ++i) std::swap(ethernet[i], ethernet[i + 6]);
  frame.bytes = static_cast<uint32_t>(l3_offset);
}

void make_too_big4(Frame& frame, size_t l3_offset, uint32_t mtu) {
  uint8_t* ip = frame.data + l3_offset;
  const size_t quoted = std::min(packet_bytes(ip), kMostError4 - kIp4HeaderBytes - kIcmpErrorBytes);
  uint8_t ends[8];
  std::memcpy(ends, ip + 12, sizeof ends);
  std::memmove(ip + kIp4HeaderBytes + kIcmpErrorBytes, ip, quoted);
  const size_t bytes = kIp4HeaderBytes + kIcmpErrorBytes + quoted;
  std::memset(ip, 0, kIp4HeaderBytes + kIcmpErrorBytes);
  ip[0] = 0x45;
  ip[1] = 0xc0;  // internetwork control (RFC 1812 §4.3.2.5)
  store_be16(ip + 2, static_cast<uint16_t>(bytes));
  ip[8] = kHopLimit;
  ip[9] = kProtocolIcmp;
  std::memcpy(ip + 12, ends + 4, 4);
  std::memcpy(ip + 16, ends, 4);
  store_be16(ip + 10, checksum_finish(checksum_add(ip, kIp4HeaderBytes, 0)));
  uint8_t* icmp = ip + kIp4HeaderBytes;
  icmp[0] = kUnreachable4;
  icmp[1] = kFragmentationNeeded;
  store_be16(icmp + 6, static_cast<uint16_t>(mtu));
  store_be16(icmp + 2, checksum_finish(checksum_add(icmp, kIcmpErrorBytes + quoted, 0)));
  frame.bytes += static_cast<uint32_t>(bytes);
}

void make_too_big6(Frame& frame, size_t l3_offset, uint32_t mtu) {
  uint8_t* ip = frame.data + l3_offset;
  const size_t quoted = std::min(packet_bytes(ip), kMostError6 - kIp6HeaderBytes - kIcmpErrorBytes);
  uint8_t ends[32];
  std::memcpy(ends, ip + 8, sizeof ends);
  std::memmove(ip + kIp6HeaderBytes + kIcmpErrorBytes, ip, quoted);
  std::memset(ip, 0, kIp6HeaderBytes + kIcmpErrorBytes);
  ip[0] = 0x60;
  store_be16(ip + 4, static_cast<uint16_t>(kIcmpErrorBytes + quoted));
  ip[6] = kProtocolIcmp6;
  ip[7] = kHopLimit;
  std::memcpy(ip + 8, ends + 16, 16);
  std::memcpy(ip + 24, ends, 16);
  uint8_t* icmp = ip + kIp6HeaderBytes;
  icmp[0] = kTooBig6;
  store_be32(icmp + 4, mtu);
  store_be16(icmp + 2, icmp6_checksum(ip, icmp, kIcmpErrorBytes + quoted));
  frame.bytes += static_cast<uint32_t>(kIp6HeaderBytes + kIcmpErrorBytes + quoted);
}

// encapsulate() with a second backend, or without, which leaves only the short way of nearly every packet.
template <bool Second>
[[gnu::always_inline]] inline DropReason put_header(const Action& action, const Action* second, uint64_t flow_hash,
                                                    uint32_t link_mtu, size_t l3_offset, Frame& frame) {
  uint8_t* ip = frame.data + l3_offset;
  const size_t inner_bytes = packet_bytes(ip);
  const size_t header_bytes = Second ? outer_bytes(action, second) : action.header_bytes;
  const size_t bytes = header_bytes + inner_bytes;
  const bool fits = Second ? inner_bytes <= inner_mtu(action, second, link_mtu) : bytes <= outer_mtu(action, link_mtu);
  if (!fits) return DropReason::exceeds_mtu;
  if (frame.headroom + l3_offset < header_bytes + kEthernetBytes || bytes > UINT16_MAX) {
    return DropReason::no_headroom;
  }
  const uint8_t traffic = traffic_class(ip);
  const auto flow = static_cast<uint32_t>(flow_hash >> 8);
  uint8_t* outer = ip - header_bytes;
  copy_header(outer, action.header, action.header_bytes);
  if (Second && action.mode == Forwarding::gue) add_second_hop(*second, outer + action.header_bytes);
  if (action.outer_family == 4) {
    finish_ip4(action, outer, bytes, traffic, flow);
    if (Second && action.mode == Forwarding::ipip) name_second_by_id(*second, outer);
  } else {
    finish_ip6(action, outer, bytes, traffic, flow);
  }
  if (action.udp_offset != 0) {
    uint8_t* udp = outer + action.udp_offset;
    store_be16(udp, static_cast<uint16_t>(kFirstDynamicPort + flow_hash % kDynamicPorts));
    store_be16(udp + 4, static_cast<uint16_t>(bytes - action.udp_offset));
  }
  uint8_t* begin = outer - kEthernetBytes;
  store_be16(begin + 12, action.ether_type);
  const auto before = frame.data - begin;
  frame.data = begin;
  frame.headroom = static_cast<uint32_t>(frame.headroom - before);
  frame.capacity = static_cast<uint32_t>(frame.capacity + before);
  frame.bytes = static_cast<uint32_t>(kEthernetBytes + bytes);
  return DropReason::none;
}

[[gnu::noinline]] DropReason put_header_of_two(const Action& action, const Action* second, uint64_t flow_hash,
                                               uint32_t link_mtu, size_t l3_offset, Frame& frame) {
  return put_header<true>(action, second, flow_hash, link_mtu, l3_offset, frame);
}

}  // namespace

uint32_t inner_mtu(const Action& action, const Action* second, uint32_t link_mtu) {
  const uint32_t mtu = outer_mtu(action, link_mtu);
  const uint32_t header_bytes = outer_bytes(action, second);
  const uint32_t room = mtu <= header_bytes ? 0 : mtu - header_bytes;
  if (second == nullptr) return room;
  // The packet must also fit on the way to the second backend.
  const uint32_t there = inner_mtu(*second, nullptr, link_mtu);
  const uint32_t more = action.mode == Forwarding::ipip ? kHandedOnBytes : 0;
  return std::min(room, there <= more ? 0 : there - more);
}

DropReason encapsulate(const Action& action, const Action* second, uint64_t flow_hash, uint32_t link_mtu,
                       size_t l3_offset, Frame& frame) {
  if (second != nullptr) [[unlikely]]
    return put_header_of_two(action, second, flow_hash, link_mtu, l3_offset, frame);
  return put_header<false>(action, nullptr, flow_hash, link_mtu, l3_offset, frame);
}

bool make_too_big(Frame& frame, size_t l3_offset, uint32_t mtu) {
  const uint8_t* ip = frame.data + l3_offset;
  const bool v4 = ip[0] >> 4 == 4;
  if (mtu < (v4 ? kLeastMtu4 : kLeastMtu6) || (v4 ? !may_be_told4(ip) : !may_be_told6(ip))) return false;
  const size_t most = l3_offset + (v4 ? kMostError4 : kMostError6);
  if (frame.capacity < most) return false;
  turn_round(frame, l3_offset);
  if (v4) {
    make_too_big4(frame, l3_offset, mtu);
  } else {
    make_too_big6(frame, l3_offset, mtu);
  }
  return true;
}

}  // namespace tidegate::l4
