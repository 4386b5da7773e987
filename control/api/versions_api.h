// SPDX-License-Identifier: Apache-2.0
// The history over REST: versions, the changes between them, rollback, and the audit trail.
#pragma once

#include "control/api/long_calls.h"
#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_version_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls);

}  // namespace tidegate
