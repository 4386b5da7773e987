// SPDX-License-Identifier: Apache-2.0
#include "l4/reset.h"

#include <algorithm>
#include <cstring>

#include "l4/packet_view.h"
#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kResetTcpBytes = 20;
constexpr uint8_t kResetTtl = 64;
constexpr uint16_t kResetFragmentField = 0x4000;  // do not fragment

// The parts of the packet on which the RST depends. They are read before the packet is overwritten.
struct Refused {
  uint16_t source_port, destination_port;
  uint32_t sequence, acknowledgement;
  uint32_t occupied;  // sequence numbers that the packet takes
  bool acknowledges;
};

Refused read_refused(const Frame& frame, const PacketView& view) {
  const uint8_t* tcp = frame.data + view.l4_offset;
  const uint32_t header_bytes = static_cast<uint32_t>(tcp[12] >> 4) * 4;
  uint32_t occupied = view.l4_bytes - std::min<uint32_t>(header_bytes, view.l4_bytes);
  if ((tcp[13] & kTcpSyn) != 0) ++occupied;
  if ((tcp[13] & kTcpFin) != 0) ++occupied;
  return {load_be16(tcp),     load_be16(tcp + 2), load_be32(tcp + 4),
          load_be32(tcp + 8), occupied,           (tcp[13] & kTcpAck) != 0};
}

// A packet with an acknowledgement names the sequence number that its sender waits for.
void write_tcp(uint8_t* tcp, const Refused& refused) {
  std::memset(tcp, 0, kResetTcpBytes);
  store_be16(tcp, refused.destination_port);
  store_be16(tcp + 2, refused.source_port);
  tcp[12] = kResetTcpBytes / 4 << 4;
  if (refused.acknowledges) {
    store_be32(tcp + 4, refused.acknowledgement);
    tcp[13] = kTcpRst;
  } else {
    store_be32(tcp + 8, refused.sequence + refused.occupied);
    tcp[13] = kTcpRst | kTcpAck;
  }
}

// `addresses`: source and destination of the RST, one after the other.
void write_tcp_checksum(const uint8_t* addresses, size_t address_bytes, uint8_t* tcp) {
  const uint32_t sum = checksum_add(addresses, 2 * address_bytes, kProtocolTcp + kResetTcpBytes);
  store_be16(tcp + 16, checksum_finish(checksum_add(tcp, kResetTcpBytes, sum)));
}

size_t write_over_ip4(uint8_t* ip, const Refused& refused) {
  std::swap_ranges(ip + 12, ip + 16, ip + 16);
  ip[0] = 0x45;
  ip[1] = 0;
  store_be16(ip + 2, kIp4HeaderBytes + kResetTcpBytes);
  store_be16(ip + 4, 0);
  store_be16(ip + 6, kResetFragmentField);
  ip[8] = kResetTtl;
  ip[9] = kProtocolTcp;
  store_be16(ip + 10, 0);
  store_be16(ip + 10, checksum_finish(checksum_add(ip, kIp4HeaderBytes, 0)));
  write_tcp(ip + kIp4HeaderBytes, refused);
  write_tcp_checksum(ip + 12, 4, ip + kIp4HeaderBytes);
  return kIp4HeaderBytes + kResetTcpBytes;
}

size_t write_over_ip6(uint8_t* ip, const Refused& refused) {
  std::swap_ranges(ip + 8, ip + 24, ip + 24);
  store_be32(ip, 0x60000000);
  store_be16(ip + 4, kResetTcpBytes);
  ip[6] = kProtocolTcp;
  ip[7] = kResetTtl;
  write_tcp(ip + kIp6HeaderBytes, refused);
  write_tcp_checksum(ip + 8, 16, ip + kIp6HeaderBytes);
  return kIp6HeaderBytes + kResetTcpBytes;
}

}  // namespace

bool make_reset(Frame& frame) {
  PacketView view;
  if (parse_frame(frame.data, frame.bytes, view) != DropReason::none) return false;
  const bool is_whole_tcp = view.kind == PacketKind::transport && view.protocol == kProtocolTcp && !view.first_fragment;
  if (!is_whole_tcp || (view.tcp_flags & kTcpRst) != 0) return false;
  const Refused refused = read_refused(frame, view);
  std::swap_ranges(frame.data, frame.data + 6, frame.data + 6);
  uint8_t* ip = frame.data + kEthernetBytes;
  const size_t packet_bytes = view.family == 4 ? write_over_ip4(ip, refused) : write_over_ip6(ip, refused);
  frame.bytes = static_cast<uint32_t>(kEthernetBytes + packet_bytes);
  return true;
}

}  // namespace tidegate::l4
