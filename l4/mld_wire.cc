// SPDX-License-Identifier: Apache-2.0
#include "l4/mld_wire.h"

#include <algorithm>
#include <cassert>

#include "l4/neighbour_wire.h"

namespace tidegate::l4 {
namespace {

constexpr uint8_t kQuery = 130, kReport1 = 131, kDone1 = 132, kReport2 = 143;
constexpr size_t kIp6Bytes = 40, kHopByHopBytes = 8;
constexpr size_t kMessage1Bytes = 24, kQuery2Bytes = 28, kReportHeaderBytes = 8, kRecordBytes = 20;
constexpr uint8_t kRouterAlert = 5, kPad1 = 0;

const IpAddress kAllRouters = *IpAddress::parse("ff02::2");
const IpAddress kAllMld2Routers = *IpAddress::parse("ff02::16");

bool is_link_local(const uint8_t* address) { return address[0] == 0xfe && (address[1] & 0xc0) == 0x80; }

// True if the message begins with the hop-by-hop header option "router alert", as RFC 3810 §5 demands.
bool has_router_alert(const uint8_t* ip, size_t message_at) {
  if (ip[6] != 0) return false;
  const uint8_t* options = ip + kIp6Bytes;
  const size_t end = std::min((size_t{options[1]} + 1) * 8, message_at - kIp6Bytes);
  for (size_t at = 2; at < end;) {
    if (options[at] == kPad1) {
      ++at;
      continue;
    }
    if (at + 2 > end) return false;
    if (options[at] == kRouterAlert && options[at + 1] == 2 && at + 4 <= end) return load_be16(options + at + 2) == 0;
    at += size_t{options[at + 1]} + 2;
  }
  return false;
}

// RFC 3810 §5.1.3: beyond 32,767 the code is a floating-point number.
uint32_t delay_of_code(uint16_t code) {
  if (code < 0x8000) return code;
  return (uint32_t{code & 0x0fffu} | 0x1000) << ((code >> 12 & 7) + 3);
}

// Writes the Ethernet and IPv6 headers and the router alert. Returns where the MLD message goes.
uint8_t* write_head(uint8_t* out, const Mac& own, const IpAddress& to, size_t message_bytes) {
  const Mac to_mac = {{0x33, 0x33, to.bytes[12], to.bytes[13], to.bytes[14], to.bytes[15]}};  // RFC 2464 §7
  std::memcpy(out, to_mac.bytes.data(), 6);
  std::memcpy(out + 6, own.bytes.data(), 6);
  store_be16(out + 12, kEtherTypeIp6);
  uint8_t* ip = out + kEthernetBytes;
  std::memset(ip, 0, kIp6Bytes + kHopByHopBytes + message_bytes);
  ip[0] = 0x60;
  store_be16(ip + 4, static_cast<uint16_t>(kHopByHopBytes + message_bytes));
  ip[7] = 1;  // hop limit
  std::memcpy(ip + 8, link_local_of(own).bytes.data(), 16);
  std::memcpy(ip + 24, to.bytes.data(), 16);
  uint8_t* options = ip + kIp6Bytes;
  options[0] = kProtocolIcmp6;
  options[2] = kRouterAlert;
  options[3] = 2;  // two bytes; the value 0 means MLD (RFC 2711)
  options[6] = 1;  // PadN with no further bytes
  return options + kHopByHopBytes;
}

size_t finish(uint8_t* out, uint8_t* message, size_t message_bytes) {
  store_be16(message + 2, icmp6_checksum(out + kEthernetBytes, message, message_bytes));
  return static_cast<size_t>(message - out) + message_bytes;
}

}  // namespace

bool is_mld_query(const uint8_t* frame, const PacketView& view) {
  return view.kind == PacketKind::icmp && view.family == 6 && frame[view.l4_offset] == kQuery;
}

// RFC 3810 §5.1.14 and §6.2 say which queries to ignore.
DropReason read_mld_query(const uint8_t* frame, const PacketView& view, MldQuery& query) {
  const uint8_t* ip = frame + view.l3_offset;
  const uint8_t* icmp = frame + view.l4_offset;
  const bool sound = !view.first_fragment && ip[7] == 1 && is_link_local(ip + 8) &&
                     has_router_alert(ip, size_t{view.l4_offset} - view.l3_offset);
  if (!sound || view.l4_bytes < kMessage1Bytes) return DropReason::mld_malformed;
  if (view.l4_bytes > kMessage1Bytes && view.l4_bytes < kQuery2Bytes) return DropReason::mld_malformed;
  if (icmp6_checksum(ip, icmp, view.l4_bytes) != 0) return DropReason::mld_malformed;
  query.version1 = view.l4_bytes == kMessage1Bytes;
  query.group = IpAddress::v6(icmp + 8);
  const bool general = query.group == IpAddress{IpAddress::Family::v6, {}};
  if (!general && query.group.bytes[0] != 0xff) return DropReason::mld_malformed;
  const uint16_t code = load_be16(icmp + 4);
  query.longest_delay_ms = query.version1 ? code : delay_of_code(code);
  return DropReason::none;
}

size_t write_mld2_report(uint8_t* out, const Mac& own, MldRecord record, const IpAddress* groups, size_t count) {
  assert(count <= kMaxMldRecords);
  const size_t message_bytes = kReportHeaderBytes + count * kRecordBytes;
  uint8_t* message = write_head(out, own, kAllMld2Routers, message_bytes);
  message[0] = kReport2;
  store_be16(message + 6, static_cast<uint16_t>(count));
  for (size_t i = 0; i < count; ++i) {
    uint8_t* entry = message + kReportHeaderBytes + i * kRecordBytes;
    entry[0] = static_cast<uint8_t>(record);
    std::memcpy(entry + 4, groups[i].bytes.data(), 16);
  }
  return finish(out, message, message_bytes);
}

size_t write_mld1_report(uint8_t* out, const Mac& own, MldRecord record, const IpAddress& group) {
  const bool leaves = record == MldRecord::leaves;
  uint8_t* message = write_head(out, own, leaves ? kAllRouters : group, kMessage1Bytes);
  message[0] = leaves ? kDone1 : kReport1;
  std::memcpy(message + 8, group.bytes.data(), 16);
  return finish(out, message, kMessage1Bytes);
}

}  // namespace tidegate::l4
