// SPDX-License-Identifier: Apache-2.0
// How many cores this process may use: what a number of threads that is left to us is made from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace tidegate {

// The cores on which the kernel may run this process (sched_getaffinity(2)), but not more than the CPU time that its
// cgroup and those above it allow (cpu.max of cgroup v2). A part of a core counts as one. At least 1.
uint32_t usable_cores();

// The bound of the cgroups alone. `proc` is a folder like /proc/self, whose files say in which cgroup the process is
// and where that is mounted. Nothing: there is no bound, or it cannot be read.
std::optional<uint32_t> cores_of_cgroups(const std::string& proc);

}  // namespace tidegate
