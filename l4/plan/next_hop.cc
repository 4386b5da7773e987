// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/next_hop.h"

#include <algorithm>

namespace tidegate::l4 {
namespace {

bool holds(const L4Port& port, const IpAddress& address) {
  return std::any_of(port.addresses.begin(), port.addresses.end(),
                     [&](const auto& own) { return Cidr::of(own.first, own.second).contains(address); });
}

}  // namespace

bool is_down(const Outages& outages, size_t port) { return port < outages.ports.size() && outages.ports[port]; }

std::optional<uint16_t> port_on_link(const L4Node& node, const IpAddress& address, const Outages& outages) {
  std::optional<uint16_t> down;
  for (size_t port = 0; port < node.ports.size(); ++port) {
    if (!holds(node.ports[port], address)) continue;
    if (!is_down(outages, port)) return static_cast<uint16_t>(port);
    if (!down) down = static_cast<uint16_t>(port);
  }
  return down;
}

Hop next_hop_of(const L4Node& node, const IpAddress& address, const Outages& outages) {
  if (const auto port = port_on_link(node, address, outages)) return {address, *port};
  std::optional<Hop> hop;
  for (size_t port = 0; port < node.ports.size(); ++port) {
    for (const IpAddress& gateway : node.ports[port].gateways) {
      if (gateway.family != address.family || (hop && is_down(outages, port))) continue;
      if (!hop || is_down(outages, hop->port)) hop = Hop{gateway, static_cast<uint16_t>(port)};
    }
  }
  return hop.value_or(Hop{address, 0});
}

const IpAddress* address_towards(const L4Node& node, const Backend& backend, const TunnelConfig& tunnel,
                                 uint8_t family) {
  const IpAddress* other = nullptr;
  for (const IpAddress& address : backend.addresses) {
    const bool same = static_cast<uint8_t>(address.family) == family;
    if (tunnel.mode == Forwarding::l2dsr) {
      if (same) return &address;
    } else if (outer_source(node, 0, address.family)) {
      if (same) return &address;
      other = &address;
    }
  }
  return other;
}

}  // namespace tidegate::l4
