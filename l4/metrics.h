// SPDX-License-Identifier: Apache-2.0
// The workers' counters as Prometheus text.
#pragma once

#include <string>
#include <vector>

#include "l4/counters.h"
#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

// Appends tidegate_l4_*: sums over workers, by reason, by backend, and by worker where that says more.
void append_metrics(std::string& out, const std::vector<const WorkerCounters*>& workers, const ForwardingTables& tables,
                    const BackendIds& backends);

}  // namespace tidegate::l4
