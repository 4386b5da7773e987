// SPDX-License-Identifier: Apache-2.0
// The VIP addresses that BIRD should announce for this host's forwarder, and the file from which BIRD reads them. Pure.
//
// Each address has its own protocol in BIRD (`protocol static`), with a blackhole route whose bgp_next_hop is the
// forwarder's own address. A decision enables or disables a protocol. The file has the same decision. A BIRD that
// starts later, or that another program reconfigures, reads it there.
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
  std::optional<IpAddress> next_hop;  // the forwarder's address of that family; not set: it has none
  bool announced = false;
  std::string why;  // why it is not announced; empty if it is
};

// The addresses of all VIPs for which the node's forwarder answers, in the order of the model. `own` is control's
// verdict on this node's forwarder.
//
// An address is withdrawn if an operator drained or took down the VIP, or took down its site. It is also withdrawn if
// the forwarder is down, or if it is draining while another forwarder of the VIP is up (the last one serves to its
// end). An operator's override of the forwarder has precedence over control's verdict.
std::vector<AnnouncedAddress> plan_announcements(const Model& model, const LiveState& live_state,
                                                 const std::string& node, const HealthVerdict& own);

// "tidegate_10_10_0_100"; IPv6 in 32 hex digits.
std::string bird_protocol(const IpAddress& address);
// The file that the operator's bird.conf includes.
std::string bird_file(const std::vector<AnnouncedAddress>& addresses);

}  // namespace tidegate
