// SPDX-License-Identifier: Apache-2.0
// /v1/zones: zones, their records, and their files. A record is no object of its own: the file of its zone is, and a
// change of a record is a version in which that file alone is another one. So a later apply of the file decides again:
// what it does not have is gone.
#pragma once

#include "control/api/long_calls.h"
#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_zone_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls);

}  // namespace tidegate
