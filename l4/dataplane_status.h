// SPDX-License-Identifier: Apache-2.0
// Answers of the admin socket about a running dataplane: its ports, the last dropped frames, and its troubles. Main
// thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "l4/dataplane.h"

namespace tidegate::l4 {

// A counter over all workers.
uint64_t sum_of(const Dataplane& dataplane, OwnedCounter WorkerCounters::*counter);

// [{"device": "eth0", "driver": "af_xdp", "mac": "…", "link": true, …}]; with the members of a bond.
nlohmann::json ports_status(const Dataplane& dataplane);

// A line for each port, or member of a bond, that does not work.
std::string port_problems(const Dataplane& dataplane);

// The frames that each worker dropped last, with reasons and headers.
nlohmann::json last_dropped(const Dataplane& dataplane);

}  // namespace tidegate::l4
