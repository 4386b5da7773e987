// SPDX-License-Identifier: Apache-2.0
// The configuration over REST: read it, replace it, patch it, change one object of it.
#pragma once

#include "control/api/long_calls.h"
#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_config_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls);

}  // namespace tidegate
