// SPDX-License-Identifier: Apache-2.0
// Action: how a packet goes to a backend behind a tunnel. It is derived with the tables: the outer header as a
// template, the path's MTU, and which fields a flow varies. A backend on the link (l2dsr) needs none, because its
// packets only get new Ethernet addresses.
//
// The outer headers by mode, before the packet as the client sent it:
//    ipip   IP                       protocol 4 (IPv4 in it) or 41 (IPv6 in it): RFC 2003, RFC 2473, RFC 4213
//    gue    IP, UDP 6080, 4 bytes    variant 0 without flags: draft-ietf-intarea-gue-09 §3
//    vxlan  IP, UDP 4789, 8 bytes, and an Ethernet header of our own: RFC 7348 §5
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "conf/model/node.h"
#include "conf/model/service.h"
#include "l4/neighbour.h"

namespace tidegate::l4 {

struct alignas(64) Action {
  static constexpr size_t kMostHeaderBytes = 40 + 8 + 8 + kEthernetBytes;  // vxlan over IPv6

  Forwarding mode = Forwarding::l2dsr;
  uint8_t outer_family = 4;
  uint8_t header_bytes = 0;  // bytes used of `header`
  uint8_t udp_offset = 0;    // offset of the UDP header in `header`; 0: no UDP
  uint16_t path_mtu = 0;     // the longest outer packet that the path takes; 0: like the port's link
  uint16_t ether_type = 0;   // of the outer packet
  uint32_t sum = 0;          // sum over the template's IPv4 header, for its checksum
  uint32_t varied = 0;       // mask of the bits in the last word of the outer source that depend on the flow
  uint8_t header[kMostHeaderBytes] = {};  // from the outer IP header on

  // The header does not end in the first cache line: vxlan, and gue over IPv6.
  bool is_long() const { return header + header_bytes > reinterpret_cast<const uint8_t*>(this) + 64; }
};
static_assert(sizeof(Action) == 128);

// The tunnel from a service to the backends of its pool.
struct TunnelConfig {
  Forwarding mode = Forwarding::l2dsr;
  uint32_t vni = 0;
  uint16_t port = 0;  // UDP; 0: the mode's own
  bool operator==(const TunnelConfig&) const = default;
};

// The outer source of a family: a prefix whose host bits the flow chooses, or one address.
struct OuterSource {
  IpAddress address;
  uint8_t prefix = 0;
};

constexpr uint16_t kGuePort = 6'080, kVxlanPort = 4'789;
// The inner Ethernet addresses of vxlan. Every backend gives its VXLAN interface the first one.
constexpr Mac kVxlanBackendMac = {{0x02, 0x74, 0x67, 0x76, 0x78, 0x62}};
constexpr Mac kVxlanForwarderMac = {{0x02, 0x74, 0x67, 0x76, 0x78, 0x66}};

const char* name(Forwarding mode);

// True if the header of a packet to the backend of `first` can also name the backend of `second` (second_hop.h).
bool can_name(const Action& first, const Action& second);

// Makes the action for packets of `inner_family` to a backend at `destination`. `source` has the same family as
// `destination`.
Action make_action(const TunnelConfig& tunnel, uint8_t inner_family, const OuterSource& source,
                   const IpAddress& destination, uint16_t path_mtu);

// The outer source of a family: the node's prefix for it, or the port's own address.
std::optional<OuterSource> outer_source(const L4Node& node, uint16_t port, IpAddress::Family family);

}  // namespace tidegate::l4
