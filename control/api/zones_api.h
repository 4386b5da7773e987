// SPDX-License-Identifier: Apache-2.0
// /v1/zones: zones, their records, and their files. A record is not an object of its own, but the file of its zone is.
// The change of a record makes a version in which only that file differs. So a later apply of the file replaces all
// records: those that it does not have are gone.
#pragma once

#include "control/api/long_calls.h"
#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

void add_zone_routes(RouteTable& table, HostState& host_state, LongCalls& long_calls);

}  // namespace tidegate
