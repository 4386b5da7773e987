// SPDX-License-Identifier: Apache-2.0
// The descriptors that poll mode drivers open. DPDK has no call that lists them. They are found by a comparison of the
// open descriptors before and after a device is opened. So only one thread may open devices.
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

// All such files of this process.
DriverFiles driver_files();
DriverFiles new_since(const DriverFiles& before);

// The inode of an open file; 0: it is closed.
ino_t inode_of(int fd);
// Closes what a driver left open: sockets whose descriptor still has the inode, and BPF objects.
void close_left(const std::vector<std::pair<int, ino_t>>& sockets, const std::vector<int>& bpf_fds);

}  // namespace tidegate::l4
