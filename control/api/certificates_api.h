// SPDX-License-Identifier: Apache-2.0
// The certificates of the edge over REST: their source, names and end, the result of the last order, and whether they
// are revoked. Any control can answer, because the data is in the state.
#pragma once

#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_certificate_routes(RouteTable& table, HostState& host_state);

}  // namespace tidegate
