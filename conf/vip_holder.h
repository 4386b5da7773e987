// SPDX-License-Identifier: Apache-2.0
// VipHolder: which forwarder of a site answers for an address of a VIP. Several forwarders of a VIP may be on the link
// on which the address is (it is in the network of one of their ports). Only one of them may answer its neighbours' ARP
// and neighbour discovery there: the first that is up, in the order of `nodes`. The others stand by. An address on no
// such link comes by routes, and every forwarder that gets its packets serves it.
//
// The answer follows from the version and the records about planes alone. So all hosts that have the same state agree,
// and a forwarder that is up again takes the address back when control writes so (ReturnGuard keeps it from flapping).
// Pure.
#pragma once

#include <string>
#include <vector>

#include "conf/plane_health.h"
#include "conf/snapshot.h"

namespace tidegate {

// The node whose forwarder answers for the address. Among the nodes that could, it is the first that is up, else the
// first that is draining, else the first. kNone: fewer than two forwarders could. `planes` is Snapshot::nodes.
// Allocates nothing.
uint32_t holder_of(const Forwarders& forwarders, const std::vector<NodeStatus>& planes, uint32_t vip,
                   const IpAddress& address);

// True if another node's forwarder answers for the address.
bool stands_by(const Forwarders& forwarders, const std::vector<NodeStatus>& planes, uint32_t node, uint32_t vip,
               const IpAddress& address);

// The name of the node whose forwarder answers for the address. Empty if the address is not a VIP's, or if fewer than
// two forwarders could answer.
std::string holder_name(const Snapshot& snapshot, const IpAddress& address);

}  // namespace tidegate
