// SPDX-License-Identifier: Apache-2.0
// PlainPacket: the kind of nearly every packet, read in one step and kept in registers. It is TCP or UDP, whole, over
// IPv4 without options or IPv6 without extension headers, to our own MAC address, from a source that a client can have.
// A frame that if_plain does not take is not refused yet: parse_frame (packet_view.h) reads it and names the fault. For
// a frame that if_plain takes, parse_frame gives the same result.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "l4/flow_key.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct PlainPacket {
  FlowTuple tuple;
  uint8_t tcp_flags = 0;  // 0 for UDP
};

// A MAC address in the form that if_plain compares: the first six of eight bytes, in one word.
inline uint64_t mac_word(const uint8_t* eight_bytes) {
  static_assert(std::endian::native == std::endian::little);
  return load_raw<uint64_t>(eight_bytes) << 16;
}

// `l4_bytes` must be at least the size of a UDP header, and that many bytes must be readable.
[[gnu::always_inline]] inline bool read_plain_transport(const uint8_t* l4, size_t l4_bytes, PlainPacket& packet) {
  constexpr size_t kTcpHeaderBytes = 20, kUdpHeaderBytes = 8;
  if (packet.tuple.protocol == kProtocolTcp) {
    if (l4_bytes < kTcpHeaderBytes) return false;
    const size_t header_bytes = static_cast<size_t>(l4[12] >> 4) * 4;
    if (header_bytes < kTcpHeaderBytes || header_bytes > l4_bytes) return false;
    packet.tcp_flags = l4[13];
  } else if (packet.tuple.protocol == kProtocolUdp) {
    const size_t datagram_bytes = load_be16(l4 + 4);
    if (datagram_bytes < kUdpHeaderBytes || datagram_bytes > l4_bytes) return false;
    packet.tcp_flags = 0;
  } else {
    return false;
  }
  packet.tuple.client_port_be = load_raw<uint16_t>(l4);
  packet.tuple.service_port_be = load_raw<uint16_t>(l4 + 2);
  return true;
}

[[gnu::always_inline]] inline bool read_plain_ip4(const uint8_t* frame, size_t bytes, PlainPacket& packet) {
  constexpr size_t kHeaderBytes = 20, kLeastBytes = kHeaderBytes + 8;
  const uint8_t* ip = frame + kEthernetBytes;
  const size_t total_bytes = load_be16(ip + 2);
  if (ip[0] != 0x45 || total_bytes < kLeastBytes || total_bytes > bytes - kEthernetBytes) return false;
  if ((load_be16(ip + 6) & 0x3fff) != 0) return false;  // it is a fragment
  const uint8_t network = ip[12];
  if (network == 0 || network == 127 || network >= 224) return false;
  packet.tuple.family = 4;
  packet.tuple.protocol = ip[9];
  packet.tuple.client = {load_raw<uint32_t>(ip + 12), 0};
  packet.tuple.vip = {load_raw<uint32_t>(ip + 16), 0};
  if (packet.tuple.client.a == packet.tuple.vip.a) return false;
  return read_plain_transport(ip + kHeaderBytes, total_bytes - kHeaderBytes, packet);
}

[[gnu::always_inline]] inline bool read_plain_ip6(const uint8_t* frame, size_t bytes, PlainPacket& packet) {
  constexpr size_t kHeaderBytes = 40, kLeastBytes = 8;
  if (bytes < kEthernetBytes + kHeaderBytes + kLeastBytes) return false;
  const uint8_t* ip = frame + kEthernetBytes;
  const size_t payload_bytes = load_be16(ip + 4);
  if (ip[0] >> 4 != 6 || payload_bytes < kLeastBytes || payload_bytes > bytes - kEthernetBytes - kHeaderBytes) {
    return false;
  }
  packet.tuple.family = 6;
  packet.tuple.protocol = ip[6];
  packet.tuple.client = {load_raw<uint64_t>(ip + 8), load_raw<uint64_t>(ip + 16)};
  packet.tuple.vip = {load_raw<uint64_t>(ip + 24), load_raw<uint64_t>(ip + 32)};
  if (ip[8] == 0xff || packet.tuple.client.a == 0 || packet.tuple.client == packet.tuple.vip) return false;
  return read_plain_transport(ip + kHeaderBytes, payload_bytes, packet);
}

// Returns take(packet) for a plain packet, and false for any other. `own_mac` is the port's MAC in the form of
// mac_word. take() is compiled once for each family.
template <class Take>
[[gnu::always_inline]] inline bool if_plain(const uint8_t* frame, size_t bytes, uint64_t own_mac, Take&& take) {
  constexpr size_t kLeastBytes = kEthernetBytes + 20 + 8;
  if (bytes < kLeastBytes || bytes > UINT16_MAX || mac_word(frame) != own_mac) return false;
  const uint16_t ether_type = load_be16(frame + 12);
  PlainPacket packet;
  if (ether_type == kEtherTypeIp4) return read_plain_ip4(frame, bytes, packet) && take(packet);
  return ether_type == kEtherTypeIp6 && read_plain_ip6(frame, bytes, packet) && take(packet);
}

}  // namespace tidegate::l4
