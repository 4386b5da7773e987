// SPDX-License-Identifier: Apache-2.0
// The API of candidates: the refused ones, and the votes on versions.
#pragma once

#include "control/api/route_table.h"
#include "control/observe/fleet.h"
#include "control/vote/candidates.h"
#include "control/vote/provisional_versions.h"

namespace tidegate {

void add_candidate_routes(RouteTable& table, Candidates& candidates, HostState& host_state, Fleet& fleet);
// `confirmed` is called after a version was confirmed.
void add_confirm_routes(RouteTable& table, HostState& host_state, ProvisionalVersions& provisionals,
                        std::function<void()> confirmed);

}  // namespace tidegate
