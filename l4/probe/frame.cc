// SPDX-License-Identifier: Apache-2.0
#include "l4/probe/frame.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kTcpHeader = 20, kUdpHeader = 8;
constexpr uint8_t kProbeHopLimit = 64;
constexpr uint16_t kProbeWindow = 1'024;  // a connection that is reset at once needs no window

// Over the pseudo header of RFC 9293 §3.1 or RFC 8200 §8.1, whose sums are equal for lengths below 65,536.
uint16_t transport_checksum(const ProbePacket& packet, const uint8_t* transport, size_t bytes) {
  uint32_t sum = checksum_add(packet.source.bytes.data(), packet.source.size(), 0);
  sum = checksum_add(packet.destination.bytes.data(), packet.destination.size(), sum);
  sum += packet.protocol + static_cast<uint32_t>(bytes);
  return checksum_finish(checksum_add(transport, bytes, sum));
}

size_t write_transport(uint8_t* out, const ProbePacket& packet) {
  store_be16(out, packet.source_port);
  store_be16(out + 2, packet.destination_port);
  if (packet.protocol == kProtocolTcp) {
    store_be32(out + 4, packet.sequence);
    store_be32(out + 8, 0);
    out[12] = (kTcpHeader / 4) << 4;
    out[13] = packet.tcp_flags;
    store_be16(out + 14, kProbeWindow);
    store_be32(out + 16, 0);
    store_be16(out + 16, transport_checksum(packet, out, kTcpHeader));
    return kTcpHeader;
  }
  const size_t bytes = kUdpHeader + packet.payload.size();
  store_be16(out + 4, static_cast<uint16_t>(bytes));
  store_be16(out + 6, 0);
  std::copy(packet.payload.begin(), packet.payload.end(), out + kUdpHeader);
  const uint16_t checksum = transport_checksum(packet, out, bytes);
  store_be16(out + 6, checksum == 0 ? uint16_t{0xffff} : checksum);  // 0 means none (RFC 768)
  return bytes;
}

}  // namespace

size_t write_probe_frame(uint8_t* out, const uint8_t* ethernet_addresses, const ProbePacket& packet) {
  TIDEGATE_ASSERT(packet.source.family == packet.destination.family, "both ends of a probe are of one family");
  TIDEGATE_ASSERT(packet.payload.size() <= kMaxProbePayload, "an order bounds the payload of a probe");
  const bool v4 = packet.source.is_v4();
  std::memcpy(out, ethernet_addresses, 12);
  store_be16(out + 12, v4 ? kEtherTypeIp4 : kEtherTypeIp6);
  uint8_t* const ip = out + kEthernetBytes;
  const size_t header = v4 ? kIp4HeaderBytes : kIp6HeaderBytes;
  const size_t bytes = write_transport(ip + header, packet);
  if (v4) {
    std::memset(ip, 0, header);
    ip[0] = 0x45;
    store_be16(ip + 2, static_cast<uint16_t>(header + bytes));
    ip[6] = 0x40;  // DF: then the identification may be 0 (RFC 6864 §4.1)
    ip[8] = kProbeHopLimit;
    ip[9] = packet.protocol;
    std::memcpy(ip + 12, packet.source.bytes.data(), 4);
    std::memcpy(ip + 16, packet.destination.bytes.data(), 4);
    store_be16(ip + 10, checksum_finish(checksum_add(ip, header, 0)));
  } else {
    std::memset(ip, 0, 8);
    ip[0] = 0x60;
    store_be16(ip + 4, static_cast<uint16_t>(bytes));
    ip[6] = packet.protocol;
    ip[7] = kProbeHopLimit;
    std::memcpy(ip + 8, packet.source.bytes.data(), 16);
    std::memcpy(ip + 24, packet.destination.bytes.data(), 16);
  }
  size_t total = kEthernetBytes + header + bytes;
  if (total < kMinFrameBytes) {
    std::memset(out + total, 0, kMinFrameBytes - total);
    total = kMinFrameBytes;
  }
  return total;
}

ProbeReply read_probe_reply(const uint8_t* frame, const PacketView& view) {
  ProbeReply reply;
  const uint8_t* const transport = frame + view.l4_offset;
  if (view.protocol == kProtocolTcp) {
    reply.acknowledged = load_be32(transport + 8);
    reply.tcp_flags = view.tcp_flags;
  } else {
    const size_t bytes = load_be16(transport + 4);  // parse_frame has compared it with the packet
    reply.payload = {reinterpret_cast<const char*>(transport + kUdpHeader), bytes - kUdpHeader};
  }
  return reply;
}

}  // namespace tidegate::l4
