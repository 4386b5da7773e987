// SPDX-License-Identifier: Apache-2.0
// The keys of a node that the forwarder reads only when it starts.
#pragma once

#include <string>
#include <vector>

#include "conf/model/node.h"
#include "core/result.h"

namespace tidegate::l4 {

// Devices, memory and threads are opened once. Returns the keys that differ: "l4.ports", "l4.workers".
std::vector<std::string> differences_fixed_at_start(const L4Node& running, const L4Node& wanted);

// Checks that this host has the devices of `wanted` that `running` has not opened. They cannot be opened on trial: EAL
// starts once per process.
Result<void> check_devices(const L4Node& running, const L4Node& wanted);

}  // namespace tidegate::l4
