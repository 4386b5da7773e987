// SPDX-License-Identifier: Apache-2.0
#include "l4/icmp.h"

#include <utility>

namespace tidegate::l4 {
namespace {

constexpr uint8_t kEchoReply4 = 0, kEcho4 = 8, kTimeExceeded4 = 11, kParameterProblem4 = 12;
constexpr uint8_t kUnreachable6 = 1, kParameterProblem6 = 4, kEcho6 = 128, kEchoReply6 = 129;
constexpr uint8_t kFreshTtl = 64;
constexpr size_t kIcmpErrorHeaderBytes = 8;

bool is_error(uint8_t family, uint8_t type) {
  if (family == 6) return type >= kUnreachable6 && type <= kParameterProblem6;           // RFC 4443 §2.1
  return type == kUnreachable4 || type == kTimeExceeded4 || type == kParameterProblem4;  // source quench: RFC 6633
}

void swap_bytes(uint8_t* a, uint8_t* b, size_t count) {
  for (size_t i = 0; i < count; ++i) std::swap(a[i], b[i]);
}

}  // namespace

bool is_echo_request(const uint8_t* frame, const PacketView& view) {
  if (view.kind != PacketKind::icmp || view.first_fragment) return false;
  const uint8_t* icmp = frame + view.l4_offset;
  return icmp[0] == (view.family == 4 ? kEcho4 : kEcho6) && icmp[1] == 0;
}

bool has_right_checksum(const uint8_t* frame, const PacketView& view) {
  const uint8_t* icmp = frame + view.l4_offset;
  if (view.family == 6) return icmp6_checksum(frame + view.l3_offset, icmp, view.l4_bytes) == 0;
  return checksum_finish(checksum_add(icmp, view.l4_bytes, 0)) == 0;
}

void make_echo_reply(uint8_t* frame, const PacketView& view) {
  swap_bytes(frame, frame + 6, 6);
  uint8_t* ip = frame + view.l3_offset;
  if (view.family == 4) {
    swap_bytes(ip + 12, ip + 16, 4);
    ip[8] = kFreshTtl;
    store_be16(ip + 10, 0);
    store_be16(ip + 10, checksum_finish(checksum_add(ip, static_cast<size_t>(ip[0] & 0x0f) * 4, 0)));
  } else {
    swap_bytes(ip + 8, ip + 24, 16);
    ip[7] = kFreshTtl;
  }
  // Swapping the addresses does not change the ICMPv6 checksum. Only the new type changes it.
  uint8_t* icmp = frame + view.l4_offset;
  const uint16_t old_word = load_be16(icmp);
  icmp[0] = view.family == 4 ? kEchoReply4 : kEchoReply6;
  store_be16(icmp + 2, checksum_update(load_be16(icmp + 2), old_word, load_be16(icmp)));
}

DropReason read_icmp_error(const uint8_t* frame, const PacketView& view, FlowTuple& flow) {
  const uint8_t* icmp = frame + view.l4_offset;
  if (!is_error(view.family, icmp[0])) return DropReason::icmp_unsupported;
  PacketView quoted;
  const DropReason reason =
      parse_quoted_packet(icmp + kIcmpErrorHeaderBytes, view.l4_bytes - kIcmpErrorHeaderBytes, view.family, quoted);
  if (reason != DropReason::none) return DropReason::icmp_quote_malformed;
  // The quoted packet must come from the VIP. Otherwise the error is about a flow of somebody else.
  if (quoted.kind != PacketKind::transport || !(quoted.source == view.destination)) {
    return DropReason::icmp_quote_unknown;
  }
  flow = {view.family,           quoted.protocol,    quoted.destination_port_be,
          quoted.source_port_be, quoted.destination, quoted.source};
  return DropReason::none;
}

}  // namespace tidegate::l4
