// SPDX-License-Identifier: Apache-2.0
// The workers' counters as Prometheus text.
#pragma once

#include <string>
#include <vector>

#include "l4/counters.h"
#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

// The names behind the ids of counters.
struct CountedNames {
  const BackendIds& backends;
  const AclIds& acls;
};

// Appends one counter without labels. `name` is its whole name.
void append_counter(std::string& out, const char* name, const char* help, uint64_t value);

// Appends tidegate_l4_*: sums over workers, by reason, by service, by backend, by list, and by worker where that is
// useful.
void append_metrics(std::string& out, const std::vector<const WorkerCounters*>& workers, const ForwardingTables& tables,
                    const CountedNames& names);

}  // namespace tidegate::l4
