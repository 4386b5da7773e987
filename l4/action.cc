// SPDX-License-Identifier: Apache-2.0
#include "l4/action.h"

#include <algorithm>
#include <cstring>

#include "core/assert.h"
#include "l4/second_hop.h"

namespace tidegate::l4 {
namespace {

constexpr uint8_t kHopLimit = 64;
constexpr uint8_t kProtocolIp4 = 4, kProtocolIp6 = 41;
constexpr uint16_t kDontFragment = 0x4000;

size_t write_ip4(uint8_t* ip, const IpAddress& source, const IpAddress& destination, uint8_t protocol) {
  ip[0] = 0x45;
  store_be16(ip + 6, kDontFragment);
  ip[8] = kHopLimit;
  ip[9] = protocol;
  std::memcpy(ip + 12, source.bytes.data(), 4);
  std::memcpy(ip + 16, destination.bytes.data(), 4);
  return 20;
}

size_t write_ip6(uint8_t* ip, const IpAddress& source, const IpAddress& destination, uint8_t next) {
  ip[0] = 0x60;
  ip[6] = next;
  ip[7] = kHopLimit;
  std::memcpy(ip + 8, source.bytes.data(), 16);
  std::memcpy(ip + 24, destination.bytes.data(), 16);
  return 40;
}

size_t write_gue(uint8_t* gue, uint8_t inner_protocol) {
  gue[1] = inner_protocol;  // variant 0, no control, no flags, no further header
  return 4;
}

size_t write_vxlan(uint8_t* vxlan, uint32_t vni, uint8_t inner_family) {
  vxlan[0] = 0x08;  // the VNI is valid
  store_be32(vxlan + 4, vni << 8);
  uint8_t* ethernet = vxlan + 8;
  std::memcpy(ethernet, kVxlanBackendMac.bytes.data(), 6);
  std::memcpy(ethernet + 6, kVxlanForwarderMac.bytes.data(), 6);
  store_be16(ethernet + 12, inner_family == 4 ? kEtherTypeIp4 : kEtherTypeIp6);
  return 8 + kEthernetBytes;
}

// The host bits of a prefix in the last four bytes of the address.
uint32_t host_bits(const OuterSource& source) {
  const auto bits = static_cast<unsigned>(source.address.size()) * 8 - source.prefix;
  return bits >= 32 ? UINT32_MAX : (uint32_t{1} << bits) - 1;
}

}  // namespace

const char* name(Forwarding mode) {
  switch (mode) {
    case Forwarding::l2dsr:
      return "l2dsr";
    case Forwarding::ipip:
      return "ipip";
    case Forwarding::gue:
      return "gue";
    case Forwarding::vxlan:
      return "vxlan";
  }
  TIDEGATE_UNREACHABLE("every way of forwarding has a name");
}

bool can_name(const Action& first, const Action& second) {
  if (first.mode != second.mode) return false;
  if (first.mode == Forwarding::gue) return true;
  return first.mode == Forwarding::ipip && first.outer_family == 4 && second.outer_family == 4 &&
         second_hop_id(second.header + 16) != 0;
}

Action make_action(const TunnelConfig& tunnel, uint8_t inner_family, const OuterSource& source,
                   const IpAddress& destination, uint16_t path_mtu) {
  TIDEGATE_ASSERT(tunnel.mode != Forwarding::l2dsr, "direct return has no outer header");
  TIDEGATE_ASSERT(source.address.family == destination.family, "an outer header has one family");
  const bool v4 = destination.is_v4();
  const uint8_t inner_protocol = inner_family == 4 ? kProtocolIp4 : kProtocolIp6;
  const uint8_t outer_protocol = tunnel.mode == Forwarding::ipip ? inner_protocol : kProtocolUdp;
  Action action;
  action.mode = tunnel.mode;
  action.outer_family = v4 ? 4 : 6;
  action.path_mtu = path_mtu;
  action.ether_type = v4 ? kEtherTypeIp4 : kEtherTypeIp6;
  action.varied = host_bits(source);
  uint8_t* header = action.header;
  size_t bytes = v4 ? write_ip4(header, source.address, destination, outer_protocol)
                    : write_ip6(header, source.address, destination, outer_protocol);
  if (v4) action.sum = checksum_add(header, bytes, 0);
  if (tunnel.mode != Forwarding::ipip) {
    action.udp_offset = static_cast<uint8_t>(bytes);
    const uint16_t own = tunnel.mode == Forwarding::gue ? kGuePort : kVxlanPort;
    store_be16(header + bytes + 2, tunnel.port != 0 ? tunnel.port : own);
    bytes += 8;
    bytes += tunnel.mode == Forwarding::gue ? write_gue(header + bytes, inner_protocol)
                                            : write_vxlan(header + bytes, tunnel.vni, inner_family);
  }
  action.header_bytes = static_cast<uint8_t>(bytes);
  return action;
}

std::optional<OuterSource> outer_source(const L4Node& node, uint16_t port, IpAddress::Family family) {
  for (const Cidr& prefix : node.tunnel_sources) {
    if (prefix.base.family == family) return OuterSource{prefix.base, prefix.prefix};
  }
  const auto own_address_of = [&](const L4Port& each) -> std::optional<OuterSource> {
    for (const auto& [address, prefix] : each.addresses) {
      if (address.family == family) return OuterSource{address, static_cast<uint8_t>(address.size() * 8)};
    }
    return std::nullopt;
  };
  if (port < node.ports.size()) {
    if (const auto own = own_address_of(node.ports[port])) return own;
  }
  for (const L4Port& each : node.ports) {
    if (const auto own = own_address_of(each)) return own;
  }
  return std::nullopt;
}

}  // namespace tidegate::l4
