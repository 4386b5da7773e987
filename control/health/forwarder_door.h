// SPDX-License-Identifier: Apache-2.0
// How control makes forwarders send probes (l4/probe/order.h): the forwarder of its own host over the admin socket,
// others through the controls of their hosts.
#pragma once

#include <memory>
#include <string>

#include "control/health/probe.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"

namespace tidegate {

// `fleet` and `host_state` must outlive the returned object.
std::shared_ptr<const ForwarderDoor> make_forwarder_door(Fleet& fleet, const HostState& host_state);
// Sends the order to the forwarder of this host.
void order_probe_here(Fleet& fleet, std::string order, uint64_t timeout_ms, ForwarderDoor::Answer answer);

}  // namespace tidegate
