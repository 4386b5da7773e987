// SPDX-License-Identifier: Apache-2.0
// The functions of a plane by which another process can replace it without a pause. Main thread.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/hand_over.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate {

struct Node;
struct Snapshot;

// A descriptor that is handed over; borrowed.
struct LentSocket {
  HandOverItem item;
  int fd = -1;
};

struct UpgradeHooks {
  // --- in the process that ends

  // Every socket that listens. Empty: this plane has to be restarted.
  std::function<std::vector<LentSocket>()> sockets;
  // The new process is warm. Release what only one process can have, then call `done`, with its lock if there is one.
  // `done` may be called later, but only on the main thread. May be empty.
  std::function<void(std::function<void(UniqueFd lock)> done)> let_go;
  // The new process ended before it served: take back what can be taken back. May be empty.
  std::function<void()> take_back;
  // The new process serves: accept nothing more, finish what is under way, then call `done`. Close sockets without
  // reading what waits in them, because the new process has them too.
  std::function<void(std::function<void()> done)> leave;
  std::function<size_t()> connections;  // how many connections are left

  // --- in the process that follows, before its first version

  // Prepares for this version all that can be prepared while the previous process still serves. An Error ends this
  // process. May be empty.
  std::function<Result<void>(const std::shared_ptr<const Snapshot>& snapshot, const Node& node)> get_ready;
  std::function<void(const HandOverItem& item, UniqueFd socket)> inherit;
  std::function<void(UniqueFd lock)> inherit_lock;  // may be empty
  // The format of the plane's data on the disk. A new process with another format starts empty. May be empty.
  std::string data_format;
};

}  // namespace tidegate
