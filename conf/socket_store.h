// SPDX-License-Identifier: Apache-2.0
// SocketStore: keeps a plane's listening sockets with the service manager, so that they outlive a crash of the plane.
// Connections and queries that come before the next process has started wait in them, and none is refused. It also
// keeps memory that the next process continues to use.
//
// Invariant: the manager keeps what this plane listens on, and nothing else. If it kept a socket after the plane had
// closed it, the kernel would go on accepting connections there, and nobody would serve them.
//
// Threads: the main thread.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "conf/upgrade_hooks.h"
#include "core/service_manager.h"

namespace tidegate {

class SocketStore {
 public:
  explicit SocketStore(ServiceManager& manager) : manager_(manager) {}

  // Takes the sockets of a process that crashed. A descriptor that is not a plane's socket is closed and forgotten,
  // with a line in the log.
  std::vector<std::pair<HandOverItem, UniqueFd>> take();
  // The manager may have this socket already, because the previous process gave it to the manager. So keep() does not
  // give it again.
  void expect(const LentSocket& socket);
  // From now on the manager keeps these sockets and no others.
  void keep(const std::vector<LentSocket>& sockets);
  void forget_all() { keep({}); }

  size_t taken() const { return taken_; }        // how many were taken at the start
  size_t kept() const { return names_.size(); }  // how many the manager keeps now

 private:
  ServiceManager& manager_;
  std::map<std::string, bool> names_;  // names of kept descriptors; true: the plane listens on it
  size_t taken_ = 0;
};

}  // namespace tidegate
