// SPDX-License-Identifier: Apache-2.0
// The kernel's figures for this process, as Prometheus text.
#pragma once

#include <string>
#include <string_view>

namespace tidegate {

// Returns the families
// process_{cpu_seconds_total,resident_memory_bytes,virtual_memory_bytes,open_fds,max_fds,start_time_seconds}, named as
// in Prometheus' client libraries, and <prefix>_build_info. They are read at the call. An example of `prefix` is
// "tidegate_l7". It walks /proc/self/fd, so use it only for scrapes.
std::string process_metrics_text(std::string_view prefix);

}  // namespace tidegate
