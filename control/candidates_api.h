// SPDX-License-Identifier: Apache-2.0
// The API of candidates: those that were refused, and how the votes on versions went.
#pragma once

#include "control/candidates.h"
#include "control/fleet.h"
#include "control/provisional_versions.h"
#include "control/route_table.h"

namespace tidegate {

void add_candidate_routes(RouteTable& table, Candidates& candidates, HostState& host_state, Fleet& fleet);
// `confirmed` is called after a version was confirmed.
void add_confirm_routes(RouteTable& table, ProvisionalVersions& provisionals, std::function<void()> confirmed);

}  // namespace tidegate
