// SPDX-License-Identifier: Apache-2.0
// Live state over REST: operators drain and undrain. Every reader sees which parts are in service, and why others are
// not.
#pragma once

#include "control/api/long_calls.h"
#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_live_state_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls);

}  // namespace tidegate
