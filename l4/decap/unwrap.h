// SPDX-License-Identifier: Apache-2.0
// Finds and checks the packet inside a tunnelled datagram. Pure functions of bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/ip.h"

namespace tidegate::l4 {

// Every way for a tunnelled packet to end here without reaching the kernel. The name is the counter's reason.
// X(name, sentence)
#define TIDEGATE_DECAP_REASONS(X)                                                                      \
  X(source_not_allowed, "came from an address that --from does not name")                              \
  X(outer_truncated, "shorter than its outer headers say")                                             \
  X(gue_variant, "GUE of another variant than 0")                                                      \
  X(gue_control, "GUE control message")                                                                \
  X(gue_flags, "GUE with flags: their fields are not known here")                                      \
  X(gue_protocol, "GUE that carries neither IPv4 nor IPv6")                                            \
  X(inner_truncated, "the packet inside has no whole IP header, or is shorter than its header says")   \
  X(inner_version, "the packet inside is not of the version that the outer header says")               \
  X(inner_destination, "the packet inside is for an address that --to does not name")                  \
  X(inner_not_ect, "the path marked congestion, and the packet inside is of a sender without ECN")     \
  X(second_hop_malformed, "the second backend in the GUE header is cut short or of an unknown family") \
  X(second_hop_not_allowed, "no connection of this host, and --peer does not name the second backend") \
  X(second_hop_ambiguous, "no connection of this host, and --peer names several such second backends") \
  X(second_hop_unsent, "no connection of this host, and it could not be sent to the second backend")   \
  X(device_refused, "the kernel did not take the packet from the TUN device")

enum class DecapReason : uint8_t {
  none,
#define TIDEGATE_DECAP_ENUMERATE(name, sentence) name,
  TIDEGATE_DECAP_REASONS(TIDEGATE_DECAP_ENUMERATE)
#undef TIDEGATE_DECAP_ENUMERATE
      count_,
};
constexpr size_t kDecapReasons = static_cast<size_t>(DecapReason::count_);
std::string_view name(DecapReason reason);
std::string_view sentence(DecapReason reason);

// A packet inside a received datagram; it points into that datagram.
struct Unwrapped {
  DecapReason reason = DecapReason::none;
  const uint8_t* packet = nullptr;
  size_t bytes = 0;                       // without bytes after the packet
  const uint8_t* private_data = nullptr;  // private data of a GUE header
  size_t private_bytes = 0;
  // identification of the outer IPv4 header of ipip: it names a second backend, or none (second_hop.h)
  uint16_t id = 0;
};

// `payload`: the bytes after the outer IP header. `inner_protocol` is 4 for IPv4 inside, 41 for IPv6 inside.
Unwrapped unwrap_ipip(const uint8_t* payload, size_t bytes, uint8_t inner_protocol);
// `payload`: the bytes after the UDP header (draft-ietf-intarea-gue-09 §3.2).
Unwrapped unwrap_gue(const uint8_t* payload, size_t bytes);
// A raw IPv4 socket returns the outer header too. Returns its length, or 0 if it is cut short.
size_t outer_ip4_bytes(const uint8_t* datagram, size_t bytes);

// Copies congestion marks of routers on the tunnel's path to the packet (RFC 6040 §4.2): if the outer ECN field is
// "congestion experienced", the packet's field becomes the same. Returns inner_not_ect if the packet's sender does not
// use ECN. Then only a loss can signal congestion.
DecapReason carry_congestion(uint8_t outer_traffic_class, uint8_t* packet);

// The destination of a packet that was unwrapped without a reason.
IpAddress inner_destination(const uint8_t* packet);
// True if one of the prefixes contains the address. False if there are no prefixes.
bool holds_any(const std::vector<Cidr>& prefixes, const IpAddress& address);

}  // namespace tidegate::l4
