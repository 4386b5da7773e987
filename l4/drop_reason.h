// SPDX-License-Identifier: Apache-2.0
// Every reason why a packet ends here without being sent on, by name. From this one table come the enum, the counter
// tidegate_l4_dropped_packets_total{reason="<name>"} and the sentence for people.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace tidegate::l4 {

// X(name, sentence)
#define TIDEGATE_L4_DROP_REASONS(X)                                                               \
  X(frame_truncated, "shorter than an Ethernet header")                                           \
  X(frame_oversized, "in several segments or longer than 65535 bytes")                            \
  X(other_station, "unicast to a MAC address that is not ours")                                   \
  X(vlan_tagged, "carries the tag of a VLAN, and the port has no `vlan`")                         \
  X(other_vlan, "does not carry the tags of the port's VLAN")                                     \
  X(not_ip, "neither IPv4, IPv6 nor ARP")                                                         \
  X(ip4_header, "IPv4 header cut short, or its version or header length is wrong")                \
  X(ip4_length, "IPv4 total length does not fit the header or the frame")                         \
  X(ip6_header, "IPv6 header cut short, or its version is wrong")                                 \
  X(ip6_length, "IPv6 payload length does not fit the frame")                                     \
  X(ip6_extension, "IPv6 extension header cut short")                                             \
  X(ip6_extensions_too_many, "more IPv6 extension headers than are followed")                     \
  X(ip6_source_routed, "IPv6 routing header with segments left: the VIP is not its destination")  \
  X(martian_source, "source address that no client can have")                                     \
  X(tcp_malformed, "TCP header cut short, or its data offset is wrong")                           \
  X(udp_malformed, "UDP header cut short, or its length does not fit")                            \
  X(icmp_malformed, "ICMP header cut short")                                                      \
  X(icmp_checksum, "echo request whose checksum is wrong")                                        \
  X(icmp_unsupported, "ICMP for a VIP that is neither an echo request nor an error about a flow") \
  X(icmp_quote_malformed, "ICMP error whose quoted packet cannot be read")                        \
  X(icmp_quote_unknown, "ICMP error whose quoted packet belongs to no service")                   \
  X(arp_malformed, "ARP packet cut short, or not for Ethernet and IPv4")                          \
  X(nd_malformed, "neighbour discovery packet that RFC 4861 section 7.1 says to discard")         \
  X(mld_malformed, "MLD query that RFC 3810 says to pass over")                                   \
  X(neighbour_unknown, "ARP or ND about an address that is neither ours nor asked for")           \
  X(vip_conflict, "another station claims one of our addresses by ARP or ND")                     \
  X(not_local, "destination address is neither a VIP nor our own")                                \
  X(no_service, "VIP without a service for that protocol and port")                               \
  X(acl_denied, "the client is in a list that the service denies")                                \
  X(acl_not_allowed, "the client is in none of the lists that the service allows")                \
  X(source_packets, "more packets a second than clients of this network may send")                \
  X(service_packets, "more packets a second than the service takes")                              \
  X(source_flows, "more new flows a second than clients of this network may begin")               \
  X(service_flows, "more new flows a second than the service takes")                              \
  X(flow_unknown, "TCP packet of a flow that is not known, and no RST was sent for it")           \
  X(no_backend, "no backend of the pool may be used")                                             \
  X(neighbour_unresolved, "the backend's MAC address is not known (yet)")                         \
  X(fragment_without_first, "later fragment whose first fragment was not seen within seconds")    \
  X(exceeds_mtu, "longer than the MTU of the port or tunnel by which it would go")                \
  X(no_headroom, "the packet buffer has no room for the outer header")                            \
  X(port_down, "the port by which it would go is down")                                           \
  X(transmit_queue_full, "the port's transmit queue did not take it")                             \
  X(inbox_full, "handed to another worker whose inbox was full")                                  \
  X(punt_refused, "the punt device did not take it")

enum class DropReason : uint8_t {
  none,
#define TIDEGATE_L4_ENUMERATE(name, sentence) name,
  TIDEGATE_L4_DROP_REASONS(TIDEGATE_L4_ENUMERATE)
#undef TIDEGATE_L4_ENUMERATE
      count_,
};

constexpr size_t kDropReasons = static_cast<size_t>(DropReason::count_);

std::string_view name(DropReason reason);
std::string_view sentence(DropReason reason);

}  // namespace tidegate::l4
