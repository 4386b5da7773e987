// SPDX-License-Identifier: Apache-2.0
// The DPDK environment: with what arguments it starts, decided by a pure function, and the one call that starts it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model.h"
#include "core/result.h"

namespace tidegate::l4 {

struct HostResources {
  std::vector<uint32_t> cpus;  // that this process may run on
  uint64_t free_hugepage_bytes = 0;
};
HostResources read_host_resources();

bool is_pci_address(const std::string& device);

// Main lcore 0, workers 1 to `workers`. A worker gets a CPU of its own where there are more CPUs than workers, counted
// from the last one; on a smaller host the kernel places it. Hugepages are used where enough are free, in memory only
// (no files, no lock against other DPDK processes); else plain pages.
std::vector<std::string> eal_arguments(const L4Node& node, const HostResources& host);

// Once a process.
Result<void> start_eal(const std::vector<std::string>& arguments);

}  // namespace tidegate::l4
