// SPDX-License-Identifier: Apache-2.0
// PacketView: what the forwarder needs to know about a frame, read by one pure function. It never reads past the given
// bytes, and it returns a named reason for every frame that it cannot read. It reads IPv4 with options and fragments,
// IPv6 with a bounded chain of extension headers, TCP, UDP, ICMP and ICMPv6. Checksums are neither verified nor
// changed: with l2dsr the backend verifies them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "l4/drop_reason.h"
#include "l4/limits.h"
#include "l4/wire.h"

namespace tidegate::l4 {

// An address as two words in memory order, for comparing and hashing. IPv4 is zero-extended into `a`.
struct AddressWords {
  uint64_t a = 0, b = 0;
  bool operator==(const AddressWords&) const = default;
};
AddressWords words_of(const IpAddress& address);
IpAddress address_of(const AddressWords& words, uint8_t family);

enum class PacketKind : uint8_t {
  arp,
  transport,       // TCP or UDP with its ports: a whole packet or a first fragment
  later_fragment,  // a fragment without ports
  icmp,            // ICMP or ICMPv6, a whole packet or a first fragment
  other,           // another protocol over IP
};

struct PacketView {
  PacketKind kind = PacketKind::other;
  uint8_t family = 0;    // 4 or 6; 0 for ARP
  uint8_t protocol = 0;  // the protocol after the IP header and its extensions
  uint8_t tcp_flags = 0;
  bool first_fragment = false;
  uint16_t l3_offset = 0;  // from the start of the frame
  uint16_t l4_offset = 0;
  uint16_t l4_bytes = 0;  // bytes inside the datagram; Ethernet padding is not counted
  uint16_t source_port_be = 0, destination_port_be = 0;
  uint32_t fragment_id = 0;
  AddressWords source, destination;
};

// Reads a received frame. On success fills `view` and returns DropReason::none. Otherwise returns the reason.
DropReason parse_frame(const uint8_t* frame, size_t bytes, PacketView& view);

// Reads the IP packet that an ICMP error quotes. It may be cut anywhere after the ports: RFC 792 promises 8 bytes of
// the transport header. Offsets in the view count from `packet`.
DropReason parse_quoted_packet(const uint8_t* packet, size_t bytes, uint8_t family, PacketView& view);

// The source address of an IP header that was already checked.
inline AddressWords source_of(const uint8_t* ip, uint8_t family) {
  if (family == 4) return {load_raw<uint32_t>(ip + 12), 0};
  return {load_raw<uint64_t>(ip + 8), load_raw<uint64_t>(ip + 16)};
}

// True for a source from which no client can expect an answer: unspecified, loopback, multicast, reserved, or the
// destination itself.
bool has_martian_source(const PacketView& view);

}  // namespace tidegate::l4
