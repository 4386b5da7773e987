// SPDX-License-Identifier: Apache-2.0
// The counters of the ports' devices in the Prometheus text format. Control thread.
#pragma once

#include <string>
#include <vector>

#include "l4/port_watch.h"

namespace tidegate::l4 {

void append_port_metrics(std::string& out, const std::vector<Port>& ports, const std::vector<PortState>& states,
                         uint64_t silent_neighbours);

}  // namespace tidegate::l4
