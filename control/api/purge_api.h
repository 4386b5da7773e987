// SPDX-License-Identifier: Apache-2.0
// Purges over REST. They remove a URL, a tag or everything from every cache of the edge, in the order of their numbers.
#pragma once

#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/observe/applied_waits.h"

namespace tidegate {

void add_purge_routes(RouteTable& table, HostState& host_state, AppliedWaits& waits);

}  // namespace tidegate
