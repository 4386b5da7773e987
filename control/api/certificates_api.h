// SPDX-License-Identifier: Apache-2.0
// The certificates of the edge over REST: from where each comes, for which names, until when, how the last order went,
// and whether it is revoked. Any control answers: it is in the state.
#pragma once

#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_certificate_routes(RouteTable& table, HostState& host_state);

}  // namespace tidegate
