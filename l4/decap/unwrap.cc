// SPDX-License-Identifier: Apache-2.0
#include "l4/decap/unwrap.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "l4/wire.h"

namespace tidegate::l4 {
namespace {

constexpr size_t kGueHeaderBytes = 4;
constexpr uint8_t kProtocolIp4 = 4, kProtocolIp6 = 41;

struct Row {
  std::string_view name, sentence;
};
constexpr std::array<Row, kDecapReasons> kTable = {{{"none", "not dropped"},
#define TIDEGATE_DECAP_ROW(name, sentence) {#name, sentence},
                                                    TIDEGATE_DECAP_REASONS(TIDEGATE_DECAP_ROW)
#undef TIDEGATE_DECAP_ROW
}};

Unwrapped refused(DecapReason reason) { return {reason, nullptr, 0}; }

Unwrapped unwrap_ip4(const uint8_t* packet, size_t bytes) {
  if (bytes < kIp4HeaderBytes) return refused(DecapReason::inner_truncated);
  const size_t header_bytes = static_cast<size_t>(packet[0] & 0x0f) * 4, total = load_be16(packet + 2);
  if (header_bytes < kIp4HeaderBytes || total < header_bytes || total > bytes) {
    return refused(DecapReason::inner_truncated);
  }
  return {DecapReason::none, packet, total};
}

Unwrapped unwrap_ip6(const uint8_t* packet, size_t bytes) {
  if (bytes < kIp6HeaderBytes) return refused(DecapReason::inner_truncated);
  const size_t total = kIp6HeaderBytes + load_be16(packet + 4);
  if (total > bytes) return refused(DecapReason::inner_truncated);
  return {DecapReason::none, packet, total};
}

}  // namespace

std::string_view name(DecapReason reason) { return kTable[static_cast<size_t>(reason)].name; }
std::string_view sentence(DecapReason reason) { return kTable[static_cast<size_t>(reason)].sentence; }

Unwrapped unwrap_ipip(const uint8_t* payload, size_t bytes, uint8_t inner_protocol) {
  if (bytes == 0) return refused(DecapReason::inner_truncated);
  const bool v4 = inner_protocol == kProtocolIp4;
  if (payload[0] >> 4 != (v4 ? 4 : 6)) return refused(DecapReason::inner_version);
  return v4 ? unwrap_ip4(payload, bytes) : unwrap_ip6(payload, bytes);
}

Unwrapped unwrap_gue(const uint8_t* payload, size_t bytes) {
  if (bytes < kGueHeaderBytes) return refused(DecapReason::outer_truncated);
  if (payload[0] >> 6 != 0) return refused(DecapReason::gue_variant);
  if ((payload[0] & 0x20) != 0) return refused(DecapReason::gue_control);
  if (load_be16(payload + 2) != 0) return refused(DecapReason::gue_flags);
  const uint8_t protocol = payload[1];
  if (protocol != kProtocolIp4 && protocol != kProtocolIp6) return refused(DecapReason::gue_protocol);
  // Without flags, further header words are private data. A receiver that does not use them skips them.
  const size_t header_bytes = kGueHeaderBytes + static_cast<size_t>(payload[0] & 0x1f) * 4;
  if (header_bytes > bytes) return refused(DecapReason::outer_truncated);
  Unwrapped inside = unwrap_ipip(payload + header_bytes, bytes - header_bytes, protocol);
  inside.private_data = payload + kGueHeaderBytes;
  inside.private_bytes = header_bytes - kGueHeaderBytes;
  return inside;
}

size_t outer_ip4_bytes(const uint8_t* datagram, size_t bytes) {
  if (bytes < kIp4HeaderBytes) return 0;
  const size_t header_bytes = static_cast<size_t>(datagram[0] & 0x0f) * 4;
  return header_bytes < kIp4HeaderBytes || header_bytes > bytes ? 0 : header_bytes;
}

DecapReason carry_congestion(uint8_t outer_traffic_class, uint8_t* packet) {
  constexpr uint8_t kEcn = 3, kNotEct = 0, kCongested = 3;
  if ((outer_traffic_class & kEcn) != kCongested) return DecapReason::none;
  const bool v4 = packet[0] >> 4 == 4;
  const uint16_t first = load_be16(packet);
  const auto traffic_class = static_cast<uint8_t>(v4 ? first & 0xff : first >> 4 & 0xff);
  if ((traffic_class & kEcn) == kNotEct) return DecapReason::inner_not_ect;
  const auto marked = static_cast<uint16_t>(first | (v4 ? kCongested : kCongested << 4));
  store_be16(packet, marked);
  if (v4) store_be16(packet + 10, checksum_update(load_be16(packet + 10), first, marked));
  return DecapReason::none;
}

IpAddress inner_destination(const uint8_t* packet) {
  IpAddress address;
  const bool v4 = packet[0] >> 4 == 4;
  address.family = v4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::memcpy(address.bytes.data(), packet + (v4 ? 16 : 24), address.size());
  return address;
}

bool holds_any(const std::vector<Cidr>& prefixes, const IpAddress& address) {
  return std::any_of(prefixes.begin(), prefixes.end(), [&](const Cidr& prefix) { return prefix.contains(address); });
}

}  // namespace tidegate::l4
