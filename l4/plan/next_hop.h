// SPDX-License-Identifier: Apache-2.0
// The port by which packets for a backend leave, and the address of the next hop.
#pragma once

#include <cstdint>
#include <optional>

#include "conf/model/pool.h"
#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

bool is_down(const Outages& outages, size_t port);

// The first port with a prefix that contains the address. A port that is down is chosen only if no other matches.
std::optional<uint16_t> port_on_link(const L4Node& node, const IpAddress& address, const Outages& outages);

struct Hop {
  IpAddress address;
  uint16_t port = 0;
};

// The address that we resolve by ARP or neighbour discovery to reach a backend. If the backend is on one of our links,
// it is the backend's own address. Otherwise it is the gateway of its family, preferably by a port that is not down. If
// there is none, it is the backend's address by the first port.
Hop next_hop_of(const L4Node& node, const IpAddress& address, const Outages& outages);

// The backend's address for packets of a family: its address of that family, or, through a tunnel, its address of the
// other family if there is an outer source of that other family. Null: the backend has no such address.
const IpAddress* address_towards(const L4Node& node, const Backend& backend, const TunnelConfig& tunnel,
                                 uint8_t family);

}  // namespace tidegate::l4
