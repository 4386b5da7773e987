// SPDX-License-Identifier: Apache-2.0
// Which addresses of VIPs this host's forwarder should draw traffic to, and the file that tells BIRD. Pure.
//
// Each address is a protocol of its own in BIRD (`protocol static`), with a blackhole route whose bgp_next_hop is the
// forwarder's own address. So a decision enables or disables a protocol, and the file says the same, for a BIRD that
// starts later or is configured anew by others.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/live_state.h"
#include "conf/model.h"

namespace tidegate {

struct AnnouncedAddress {
  std::string vip;
  IpAddress address;
  std::optional<IpAddress> next_hop;  // the forwarder's address of that family; nothing: it has none
  bool announced = false;
  std::string why;  // why not; empty if announced
};

// The addresses of all VIPs for which the node's forwarder answers, in the order of the model. `own` is what control
// found about this node's forwarder.
//
// An address is withdrawn if the VIP is drained or down by an operator, if its site is down by an operator, if the
// forwarder is down, or if it is draining while another forwarder of the VIP is up: the last one serves to its end. An
// operator's override of the forwarder counts more than what control found.
std::vector<AnnouncedAddress> plan_announcements(const Model& model, const LiveState& live_state,
                                                 const std::string& node, const HealthVerdict& own);

// "tidegate_10_10_0_100"; IPv6 in 32 hex digits.
std::string bird_protocol(const IpAddress& address);
// What the operator's bird.conf includes.
std::string bird_file(const std::vector<AnnouncedAddress>& addresses);

}  // namespace tidegate
