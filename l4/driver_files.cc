// SPDX-License-Identifier: Apache-2.0
#include "l4/driver_files.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iterator>

namespace tidegate::l4 {
namespace {

// The process's descriptors of sockets through which a poll mode driver receives.
std::set<int> packet_sockets() {
  std::set<int> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const int fd = std::atoi(entry.path().filename().c_str());
    int domain = 0;
    socklen_t length = sizeof domain;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0) continue;
    if (domain == AF_XDP || domain == AF_PACKET) found.insert(fd);
  }
  return found;
}

// The process's descriptors of BPF maps and programs.
std::set<int> bpf_objects() {
  std::set<int> found;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", ignored)) {
    const std::filesystem::path target = std::filesystem::read_symlink(entry.path(), ignored);
    if (target.native().starts_with("anon_inode:bpf")) found.insert(std::atoi(entry.path().filename().c_str()));
  }
  return found;
}

}  // namespace

DriverFiles driver_files() { return {packet_sockets(), bpf_objects()}; }

DriverFiles new_since(const DriverFiles& before) {
  const DriverFiles after = driver_files();
  DriverFiles fresh;
  std::set_difference(after.sockets.begin(), after.sockets.end(), before.sockets.begin(), before.sockets.end(),
                      std::inserter(fresh.sockets, fresh.sockets.end()));
  std::set_difference(after.bpf.begin(), after.bpf.end(), before.bpf.begin(), before.bpf.end(),
                      std::inserter(fresh.bpf, fresh.bpf.end()));
  return fresh;
}

ino_t inode_of(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 ? status.st_ino : 0;
}

void close_left(const std::vector<std::pair<int, ino_t>>& sockets, const std::vector<int>& bpf_fds) {
  for (const auto& [fd, inode] : sockets) {
    if (inode != 0 && inode_of(fd) == inode) ::close(fd);
  }
  const std::set<int> left = bpf_objects();
  for (const int fd : bpf_fds) {
    if (left.contains(fd)) ::close(fd);
  }
}

}  // namespace tidegate::l4
