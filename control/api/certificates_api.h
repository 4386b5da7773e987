// SPDX-License-Identifier: Apache-2.0
// The certificates of the edge over REST: from where each comes, for which names, until when, and how the last order
// went. Any control answers: it is in the state.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "control/acme/messages.h"
#include "control/api/route_table.h"
#include "control/host_state.h"

namespace tidegate {

// `window_of` takes the hash of a chain. It returns when the authority wants that certificate renewed, or nothing if
// this control does not know.
void add_certificate_routes(RouteTable& table, HostState& host_state,
                            std::function<std::optional<acme::RenewalInfo>(const std::string&)> window_of);

}  // namespace tidegate
