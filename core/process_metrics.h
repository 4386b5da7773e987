// SPDX-License-Identifier: Apache-2.0
// What the kernel knows of this process, as Prometheus text.
#pragma once

#include <string>
#include <string_view>

namespace tidegate {

// The families that Prometheus' client libraries name process_{cpu_seconds_total,resident_memory_bytes,
// virtual_memory_bytes,open_fds,max_fds,start_time_seconds}, and <prefix>_build_info, read now. `prefix`:
// "tidegate_l7". Costs a walk of /proc/self/fd: for scrapes only.
std::string process_metrics_text(std::string_view prefix);

}  // namespace tidegate
