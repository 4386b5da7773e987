// SPDX-License-Identifier: Apache-2.0
// Explain of a past request, by its X-Request-Id. Every proxy of the edge is asked for its records. For each recorded
// pass through a proxy, the forwarders of the VIP's site are asked for the flow. The answer also lists proxies that
// could not be asked, and proxies that have forgotten the request.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "control/host_state.h"
#include "control/observe/fleet.h"

namespace tidegate {

// Calls `done` once with {"request","version","found","steps":[...],"not_found":[{"node","why"}],
// "unreachable":[{"node","why"}],"sentence"}. A step is of l4 or l7, as in explain(). The steps of one pass are
// together, the newest pass first. "version" is the version in force now, in which the VIP is looked up.
void explain_past(Fleet& fleet, const HostState& host_state, std::string id, std::function<void(nlohmann::json)> done);

}  // namespace tidegate
