// SPDX-License-Identifier: Apache-2.0
#include "l4/packet_view.h"

#include <algorithm>

namespace tidegate::l4 {
namespace {

enum class Form { whole, quoted };

constexpr size_t kTcpHeaderBytes = 20;
constexpr size_t kUdpHeaderBytes = 8;
constexpr size_t kIcmpHeaderBytes = 8;
constexpr size_t kPortsBytes = 4;

constexpr uint8_t kIp6HopByHop = 0, kIp6Routing = 43, kIp6Fragment = 44, kIp6DestinationOptions = 60;

DropReason parse_tcp(const uint8_t* tcp, size_t bytes, Form form, PacketView& view) {
  if (bytes < (form == Form::quoted ? kPortsBytes : kTcpHeaderBytes)) return DropReason::tcp_malformed;
  if (form == Form::whole) {
    const size_t header_bytes = static_cast<size_t>(tcp[12] >> 4) * 4;
    if (header_bytes < kTcpHeaderBytes || header_bytes > bytes) return DropReason::tcp_malformed;
    view.tcp_flags = tcp[13];
  }
  return DropReason::none;
}

DropReason parse_udp(const uint8_t* udp, size_t bytes, Form form, const PacketView& view) {
  if (bytes < (form == Form::quoted ? kPortsBytes : kUdpHeaderBytes)) return DropReason::udp_malformed;
  if (form == Form::whole) {
    const uint16_t length = load_be16(udp + 4);
    // A first fragment has fewer bytes than its length field says.
    if (length < kUdpHeaderBytes || (length > bytes && !view.first_fragment)) return DropReason::udp_malformed;
  }
  return DropReason::none;
}

// `end` is where the datagram ends within the available bytes.
DropReason parse_transport(const uint8_t* frame, size_t offset, size_t end, Form form, PacketView& view) {
  const uint8_t* l4 = frame + offset;
  const size_t bytes = end - offset;
  view.l4_offset = static_cast<uint16_t>(offset);
  view.l4_bytes = static_cast<uint16_t>(bytes);

  const uint8_t icmp = view.family == 4 ? kProtocolIcmp : kProtocolIcmp6;
  if (view.protocol == icmp) {
    view.kind = PacketKind::icmp;
    return bytes < kIcmpHeaderBytes ? DropReason::icmp_malformed : DropReason::none;
  }
  DropReason reason = DropReason::none;
  if (view.protocol == kProtocolTcp) {
    reason = parse_tcp(l4, bytes, form, view);
  } else if (view.protocol == kProtocolUdp) {
    reason = parse_udp(l4, bytes, form, view);
  } else {
    view.kind = PacketKind::other;
    return DropReason::none;
  }
  if (reason != DropReason::none) return reason;
  view.kind = PacketKind::transport;
  view.source_port_be = load_raw<uint16_t>(l4);
  view.destination_port_be = load_raw<uint16_t>(l4 + 2);
  return DropReason::none;
}

DropReason parse_ip4(const uint8_t* frame, size_t offset, size_t bytes, Form form, PacketView& view) {
  const size_t available = bytes - offset;
  if (available < kIp4HeaderBytes) return DropReason::ip4_header;
  const uint8_t* ip = frame + offset;
  const size_t header_bytes = static_cast<size_t>(ip[0] & 0x0f) * 4;
  if (ip[0] >> 4 != 4 || header_bytes < kIp4HeaderBytes || header_bytes > available) return DropReason::ip4_header;
  const size_t total_bytes = load_be16(ip + 2);
  if (total_bytes < header_bytes || (form == Form::whole && total_bytes > available)) return DropReason::ip4_length;

  view.family = 4;
  view.protocol = ip[9];
  view.l3_offset = static_cast<uint16_t>(offset);
  view.source = {load_raw<uint32_t>(ip + 12), 0};
  view.destination = {load_raw<uint32_t>(ip + 16), 0};

  const uint16_t fragment = load_be16(ip + 6);
  const bool more_fragments = (fragment & 0x2000) != 0;
  view.fragment_id = load_be16(ip + 4);
  view.first_fragment = more_fragments;
  const size_t end = offset + std::min(total_bytes, available);
  if ((fragment & 0x1fff) != 0) {
    view.kind = PacketKind::later_fragment;
    view.first_fragment = false;
    view.l4_offset = static_cast<uint16_t>(offset + header_bytes);
    view.l4_bytes = static_cast<uint16_t>(end - view.l4_offset);
    return DropReason::none;
  }
  return parse_transport(frame, offset + header_bytes, end, form, view);
}

// Follows the chain of headers from `next` at `offset` (RFC 8200 §4). Sets view.protocol and `offset` to the upper
// layer.
DropReason skip_ip6_extensions(const uint8_t* frame, size_t end, uint8_t next, size_t& offset, bool& later_fragment,
                               PacketView& view) {
  for (unsigned followed = 0;; ++followed) {
    view.protocol = next;
    const bool is_options = next == kIp6HopByHop || next == kIp6DestinationOptions;
    if (!is_options && next != kIp6Routing && next != kIp6Fragment) return DropReason::none;
    if (followed == kMaxIp6Extensions) return DropReason::ip6_extensions_too_many;
    if (end - offset < 8) return DropReason::ip6_extension;
    const uint8_t* extension = frame + offset;
    size_t extension_bytes = 8;
    if (next == kIp6Fragment) {
      const uint16_t field = load_be16(extension + 2);
      view.fragment_id = load_raw<uint32_t>(extension + 4);
      // Zero offset and no "more" bit: an atomic fragment, which is a whole packet (RFC 6946).
      view.first_fragment = (field & 1) != 0;
      if ((field & 0xfff8) != 0) {
        later_fragment = true;
        view.first_fragment = false;
        view.protocol = extension[0];
        offset += extension_bytes;
        return DropReason::none;
      }
    } else {
      if (next == kIp6Routing && extension[3] != 0) return DropReason::ip6_source_routed;
      extension_bytes = (static_cast<size_t>(extension[1]) + 1) * 8;
      if (extension_bytes > end - offset) return DropReason::ip6_extension;
    }
    next = extension[0];
    offset += extension_bytes;
  }
}

DropReason parse_ip6(const uint8_t* frame, size_t offset, size_t bytes, Form form, PacketView& view) {
  const size_t available = bytes - offset;
  if (available < kIp6HeaderBytes || frame[offset] >> 4 != 6) return DropReason::ip6_header;
  const uint8_t* ip = frame + offset;
  const size_t total_bytes = kIp6HeaderBytes + load_be16(ip + 4);
  if (form == Form::whole && total_bytes > available) return DropReason::ip6_length;

  view.family = 6;
  view.l3_offset = static_cast<uint16_t>(offset);
  view.source = {load_raw<uint64_t>(ip + 8), load_raw<uint64_t>(ip + 16)};
  view.destination = {load_raw<uint64_t>(ip + 24), load_raw<uint64_t>(ip + 32)};

  const size_t end = offset + std::min(total_bytes, available);
  size_t upper = offset + kIp6HeaderBytes;
  bool later_fragment = false;
  const DropReason reason = skip_ip6_extensions(frame, end, ip[6], upper, later_fragment, view);
  if (reason != DropReason::none) return reason;
  if (later_fragment) {
    view.kind = PacketKind::later_fragment;
    view.l4_offset = static_cast<uint16_t>(upper);
    view.l4_bytes = static_cast<uint16_t>(end - upper);
    return DropReason::none;
  }
  return parse_transport(frame, upper, end, form, view);
}

}  // namespace

AddressWords words_of(const IpAddress& address) {
  return {load_raw<uint64_t>(address.bytes.data()), load_raw<uint64_t>(address.bytes.data() + 8)};
}

IpAddress address_of(const AddressWords& words, uint8_t family) {
  IpAddress address;
  address.family = family == 4 ? IpAddress::Family::v4 : IpAddress::Family::v6;
  std::memcpy(address.bytes.data(), &words.a, 8);
  std::memcpy(address.bytes.data() + 8, &words.b, 8);
  return address;
}

DropReason parse_frame(const uint8_t* frame, size_t bytes, PacketView& view) {
  view = PacketView{};
  if (bytes < kEthernetBytes) return DropReason::frame_truncated;
  if (bytes > UINT16_MAX) return DropReason::frame_oversized;
  switch (load_be16(frame + 12)) {
    case kEtherTypeIp4:
      return parse_ip4(frame, kEthernetBytes, bytes, Form::whole, view);
    case kEtherTypeIp6:
      return parse_ip6(frame, kEthernetBytes, bytes, Form::whole, view);
    case kEtherTypeArp:
      view.kind = PacketKind::arp;
      view.l3_offset = kEthernetBytes;
      return DropReason::none;
    case kEtherTypeVlan:
    case kEtherTypeQinQ:
      return DropReason::vlan_tagged;
    default:
      return DropReason::not_ip;
  }
}

DropReason parse_quoted_packet(const uint8_t* packet, size_t bytes, uint8_t family, PacketView& view) {
  view = PacketView{};
  return family == 4 ? parse_ip4(packet, 0, bytes, Form::quoted, view)
                     : parse_ip6(packet, 0, bytes, Form::quoted, view);
}

bool has_martian_source(const PacketView& view) {
  if (view.source == view.destination) return true;
  uint8_t first_byte;
  std::memcpy(&first_byte, &view.source.a, 1);
  if (view.family == 4) return first_byte == 0 || first_byte == 127 || first_byte >= 224;  // RFC 1122 §3.2.1.3
  if (first_byte == 0xff) return true;
  if (view.source.a != 0) return false;
  const IpAddress source = address_of(view.source, 6);  // :: and ::1 (RFC 4291 §2.5)
  return std::all_of(source.bytes.begin() + 8, source.bytes.begin() + 15, [](uint8_t b) { return b == 0; }) &&
         source.bytes[15] <= 1;
}

}  // namespace tidegate::l4
