// SPDX-License-Identifier: Apache-2.0
// The descriptors that poll mode drivers open. DPDK does not tell them. They are found by comparing what the process
// has open before and after a device is opened, so only one thread may open devices.
#pragma once

#include <sys/types.h>

#include <set>
#include <utility>
#include <vector>

namespace tidegate::l4 {

struct DriverFiles {
  std::set<int> sockets;  // through which a driver receives
  std::set<int> bpf;      // maps and programs
};

// Those of the whole process.
DriverFiles driver_files();
DriverFiles new_since(const DriverFiles& before);

// The inode of an open file; 0: it is closed.
ino_t inode_of(int fd);
// Closes what a driver left open: sockets whose descriptor still has the inode, and BPF objects.
void close_left(const std::vector<std::pair<int, ino_t>>& sockets, const std::vector<int>& bpf_fds);

}  // namespace tidegate::l4
