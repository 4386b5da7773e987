// SPDX-License-Identifier: Apache-2.0
// HandOn: the second chance of a packet whose connection this host does not know. If its tunnel header names a second
// backend (second_hop.h), the packet is sent there in a GUE header that names none, also if it came by ipip. So a
// packet is handed on at most once.
#pragma once

#include <cstdint>
#include <vector>

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"
#include "l4/decap/own_connections.h"
#include "l4/decap/unwrap.h"
#include "l4/second_hop.h"

namespace tidegate::l4 {

class HandOn {
 public:
  // `peers`: the other backends. A second backend must be one of them. `gue_port` is their GUE port.
  static Result<HandOn> open(std::vector<Cidr> peers, uint16_t gue_port);

  enum class Fate : uint8_t { ours, handed_on, refused };
  struct Decision {
    Fate fate = Fate::ours;
    DecapReason reason = DecapReason::none;  // why it is refused
  };
  // `inside` came from a forwarder. At least four bytes before its packet belong to the same buffer. They are
  // overwritten if the packet is handed on.
  Decision decide(const Unwrapped& inside, uint8_t* packet, uint64_t now_ns);
  bool is_peer(const IpAddress& address) const { return holds_any(peers_, address); }

 private:
  HandOn(std::vector<Cidr> peers, uint16_t gue_port, OwnConnections own, UniqueFd ip4, UniqueFd ip6)
      : peers_(std::move(peers)),
        gue_port_(gue_port),
        own_(std::move(own)),
        ip4_(std::move(ip4)),
        ip6_(std::move(ip6)) {}
  SecondHop named_by_id(uint16_t id, DecapReason& reason) const;
  bool send(const IpAddress& to, uint8_t* packet, size_t bytes) const;

  std::vector<Cidr> peers_;
  uint16_t gue_port_;
  OwnConnections own_;
  UniqueFd ip4_, ip6_;
};

}  // namespace tidegate::l4
