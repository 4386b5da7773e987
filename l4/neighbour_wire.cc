// SPDX-License-Identifier: Apache-2.0
#include "l4/neighbour_wire.h"

#include <algorithm>

namespace tidegate::l4 {
namespace {

constexpr size_t kArpBytes = 28;
constexpr uint16_t kArpRequest = 1, kArpReply = 2;
constexpr uint8_t kSolicitation = 135, kAdvertisement = 136;
constexpr uint8_t kSourceLinkOption = 1, kTargetLinkOption = 2;
constexpr size_t kNdBytes = 24;     // ICMPv6 header, flags or reserved, target
constexpr size_t kOptionBytes = 8;  // type, length in units of 8, MAC
constexpr size_t kIp6Bytes = 40;
constexpr uint8_t kNdHopLimit = 255;  // RFC 4861 §7.1: it proves that no router has forwarded the packet
constexpr uint8_t kSolicited = 0x40, kOverride = 0x20;

bool is_unspecified(const IpAddress& address) {
  return std::all_of(address.bytes.begin(), address.bytes.end(), [](uint8_t b) { return b == 0; });
}

uint8_t* write_ethernet(uint8_t* out, const Mac& to, const Mac& from, uint16_t ether_type) {
  std::memcpy(out, to.bytes.data(), 6);
  std::memcpy(out + 6, from.bytes.data(), 6);
  store_be16(out + 12, ether_type);
  return out + kEthernetBytes;
}

struct ArpFields {
  uint16_t operation;
  Mac sender_mac;
  IpAddress sender;
  Mac target_mac;
  IpAddress target;
};

size_t write_arp(uint8_t* out, const Mac& to, const ArpFields& fields) {
  uint8_t* arp = write_ethernet(out, to, fields.sender_mac, kEtherTypeArp);
  store_be16(arp, 1);  // Ethernet
  store_be16(arp + 2, kEtherTypeIp4);
  arp[4] = 6;
  arp[5] = 4;
  store_be16(arp + 6, fields.operation);
  std::memcpy(arp + 8, fields.sender_mac.bytes.data(), 6);
  std::memcpy(arp + 14, fields.sender.bytes.data(), 4);
  std::memcpy(arp + 18, fields.target_mac.bytes.data(), 6);
  std::memcpy(arp + 24, fields.target.bytes.data(), 4);
  std::memset(arp + kArpBytes, 0, kMinFrameBytes - kEthernetBytes - kArpBytes);
  return kMinFrameBytes;
}

struct NdFields {
  uint8_t type;
  uint8_t flags;
  IpAddress source, destination, target;
  uint8_t option;  // 0: none
  Mac option_mac;
};

size_t write_nd(uint8_t* out, const Mac& to, const Mac& from, const NdFields& fields) {
  uint8_t* ip = write_ethernet(out, to, from, kEtherTypeIp6);
  const size_t icmp_bytes = kNdBytes + (fields.option != 0 ? kOptionBytes : 0);
  std::memset(ip, 0, kIp6Bytes + icmp_bytes);
  ip[0] = 0x60;
  store_be16(ip + 4, static_cast<uint16_t>(icmp_bytes));
  ip[6] = kProtocolIcmp6;
  ip[7] = kNdHopLimit;
  std::memcpy(ip + 8, fields.source.bytes.data(), 16);
  std::memcpy(ip + 24, fields.destination.bytes.data(), 16);
  uint8_t* icmp = ip + kIp6Bytes;
  icmp[0] = fields.type;
  icmp[4] = fields.flags;
  std::memcpy(icmp + 8, fields.target.bytes.data(), 16);
  if (fields.option != 0) {
    icmp[kNdBytes] = fields.option;
    icmp[kNdBytes + 1] = 1;
    std::memcpy(icmp + kNdBytes + 2, fields.option_mac.bytes.data(), 6);
  }
  store_be16(icmp + 2, icmp6_checksum(ip, icmp, icmp_bytes));
  return kEthernetBytes + kIp6Bytes + icmp_bytes;
}

const IpAddress kAllNodes = *IpAddress::parse("ff02::1");

Mac multicast_mac(const IpAddress& group) {  // RFC 2464 §7
  return {{0x33, 0x33, group.bytes[12], group.bytes[13], group.bytes[14], group.bytes[15]}};
}

// Sets `mac` from the first option of type `wanted`. Returns false if an option is malformed: then the whole message is
// invalid.
bool read_link_option(const uint8_t* options, size_t bytes, uint8_t wanted, Mac& mac) {
  while (bytes > 0) {
    if (bytes < 2) return false;
    const size_t option_bytes = static_cast<size_t>(options[1]) * 8;
    if (option_bytes == 0 || option_bytes > bytes) return false;
    if (options[0] == wanted && mac.is_zero()) mac = Mac::from(options + 2);
    options += option_bytes;
    bytes -= option_bytes;
  }
  return true;
}

}  // namespace

DropReason read_arp(const uint8_t* frame, size_t bytes, size_t offset, NeighbourMessage& message) {
  if (bytes < offset + kArpBytes) return DropReason::arp_malformed;
  const uint8_t* arp = frame + offset;
  const uint16_t operation = load_be16(arp + 6);
  const bool shape_ok = load_be16(arp) == 1 && load_be16(arp + 2) == kEtherTypeIp4 && arp[4] == 6 && arp[5] == 4;
  if (!shape_ok || (operation != kArpRequest && operation != kArpReply)) return DropReason::arp_malformed;
  message.is_request = operation == kArpRequest;
  message.sender_mac = Mac::from(arp + 8);
  message.sender = IpAddress::v4(load_raw<uint32_t>(arp + 14));
  message.target = message.is_request ? IpAddress::v4(load_raw<uint32_t>(arp + 24)) : message.sender;
  const bool mac_ok = !message.sender_mac.is_multicast() && !message.sender_mac.is_zero();
  return mac_ok ? DropReason::none : DropReason::arp_malformed;
}

bool is_nd(const uint8_t* frame, const PacketView& view) {
  if (view.kind != PacketKind::icmp || view.family != 6) return false;
  const uint8_t type = frame[view.l4_offset];
  return type == kSolicitation || type == kAdvertisement;
}

DropReason read_nd(const uint8_t* frame, const PacketView& view, NeighbourMessage& message) {
  const uint8_t* ip = frame + view.l3_offset;
  const uint8_t* icmp = frame + view.l4_offset;
  // RFC 4861 §7.1.1 and §7.1.2; RFC 6980 forbids fragments.
  if (view.l4_bytes < kNdBytes || ip[7] != kNdHopLimit || icmp[1] != 0 || view.first_fragment) {
    return DropReason::nd_malformed;
  }
  if (icmp6_checksum(ip, icmp, view.l4_bytes) != 0) return DropReason::nd_malformed;
  message.is_request = icmp[0] == kSolicitation;
  message.target = IpAddress::v6(icmp + 8);
  if (message.target.bytes[0] == 0xff) return DropReason::nd_malformed;
  const IpAddress source = address_of(view.source, 6);
  message.sender = message.is_request ? source : message.target;
  message.sender_mac = Mac{};
  message.answer_to = Mac::from(frame + 6);
  const uint8_t wanted = message.is_request ? kSourceLinkOption : kTargetLinkOption;
  if (!read_link_option(icmp + kNdBytes, view.l4_bytes - kNdBytes, wanted, message.sender_mac)) {
    return DropReason::nd_malformed;
  }
  // An answer sent only to us may omit its option (§4.4). Then the MAC comes from the frame.
  if (!message.is_request && message.sender_mac.is_zero()) message.sender_mac = Mac::from(frame + 6);
  if (message.sender_mac.is_multicast()) return DropReason::nd_malformed;
  if (message.is_request && is_unspecified(source) && !message.sender_mac.is_zero()) return DropReason::nd_malformed;
  return DropReason::none;
}

size_t write_request(uint8_t* out, const OwnIdentity& own, const IpAddress& target, const Mac* unicast_to) {
  if (target.is_v4()) {
    return write_arp(out, unicast_to != nullptr ? *unicast_to : kBroadcastMac,
                     {kArpRequest, own.mac, own.address, Mac{}, target});
  }
  const IpAddress group = solicited_node(target);
  return write_nd(
      out, unicast_to != nullptr ? *unicast_to : multicast_mac(group), own.mac,
      {kSolicitation, 0, own.address, unicast_to != nullptr ? target : group, target, kSourceLinkOption, own.mac});
}

size_t write_answer(uint8_t* out, const OwnIdentity& own, const NeighbourMessage& question) {
  if (own.address.is_v4()) {
    return write_arp(out, question.sender_mac, {kArpReply, own.mac, own.address, question.sender_mac, question.sender});
  }
  // A sender without an address is detecting a duplicate, so the answer goes to all nodes (§7.2.4). A station that asks
  // only us may omit its MAC from the message (§7.2.2). Then the MAC comes from the frame.
  const bool to_all = is_unspecified(question.sender);
  const Mac to = to_all                          ? multicast_mac(kAllNodes)
                 : question.sender_mac.is_zero() ? question.answer_to
                                                 : question.sender_mac;
  const auto flags = static_cast<uint8_t>(to_all ? kOverride : kSolicited | kOverride);
  return write_nd(out, to, own.mac,
                  {kAdvertisement, flags, own.address, to_all ? kAllNodes : question.sender, own.address,
                   kTargetLinkOption, own.mac});
}

size_t write_announcement(uint8_t* out, const OwnIdentity& own) {
  if (own.address.is_v4()) {
    return write_arp(out, kBroadcastMac, {kArpRequest, own.mac, own.address, Mac{}, own.address});
  }
  return write_nd(out, multicast_mac(kAllNodes), own.mac,
                  {kAdvertisement, kOverride, own.address, kAllNodes, own.address, kTargetLinkOption, own.mac});
}

IpAddress solicited_node(const IpAddress& target) {
  static constexpr uint8_t kPrefix[13] = {0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff};
  IpAddress group = target;
  std::memcpy(group.bytes.data(), kPrefix, sizeof kPrefix);
  return group;
}

IpAddress link_local_of(const Mac& mac) {
  IpAddress address;
  address.family = IpAddress::Family::v6;
  address.bytes = {0xfe,
                   0x80,
                   0,
                   0,
                   0,
                   0,
                   0,
                   0,
                   static_cast<uint8_t>(mac.bytes[0] ^ 2),
                   mac.bytes[1],
                   mac.bytes[2],
                   0xff,
                   0xfe,
                   mac.bytes[3],
                   mac.bytes[4],
                   mac.bytes[5]};
  return address;
}

}  // namespace tidegate::l4
