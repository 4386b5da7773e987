// SPDX-License-Identifier: Apache-2.0
// The state of the edge over REST: what each node and plane has applied, calls that wait for it, and this host's own
// part.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>

#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/observe/applied_waits.h"
#include "control/observe/fleet.h"

namespace tidegate {

void add_status_routes(RouteTable& table, HostState& host_state, Fleet& fleet, AppliedWaits& waits);
// Adds this host's planes, for other controls: /v1/node/...
void add_node_routes(RouteTable& table, Fleet& fleet);
// Adds the results of this host's own probes while there is no contact to a leader, for other controls of its site.
void add_own_probes_route(RouteTable& table, std::function<nlohmann::json()> seen);

}  // namespace tidegate
