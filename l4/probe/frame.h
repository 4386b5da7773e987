// SPDX-License-Identifier: Apache-2.0
// The packets of a probe that the forwarder itself sends: one TCP segment without options, or one UDP datagram. Pure
// functions: bytes in, bytes out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/ip.h"
#include "l4/limits.h"
#include "l4/packet_view.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct ProbePacket {
  uint8_t protocol = kProtocolTcp;  // or kProtocolUdp
  IpAddress source, destination;    // both of one family
  uint16_t source_port = 0, destination_port = 0;
  uint32_t sequence = 0;  // TCP
  uint8_t tcp_flags = 0;
  std::string_view payload;  // UDP; at most kMaxProbePayload bytes
};

constexpr size_t kMaxProbeFrameBytes = kEthernetBytes + kIp6HeaderBytes + 20 + kMaxProbePayload;

// Writes a whole frame with all checksums into `out` (kMaxProbeFrameBytes) and returns its length.
// `ethernet_addresses`: destination and source, 12 bytes.
size_t write_probe_frame(uint8_t* out, const uint8_t* ethernet_addresses, const ProbePacket& packet);

// The content of a TCP segment or UDP datagram. `view` must be of a whole packet of that kind (PacketKind::transport).
struct ProbeReply {
  uint32_t acknowledged = 0;  // TCP
  uint8_t tcp_flags = 0;
  std::string_view payload;  // UDP; borrowed from the frame
};
ProbeReply read_probe_reply(const uint8_t* frame, const PacketView& view);

}  // namespace tidegate::l4
