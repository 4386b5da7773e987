// SPDX-License-Identifier: Apache-2.0
// What a plane does so that another process can follow it without a pause. Main thread.
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
  // The new process is warm: let go of what only one process can have, then call `done`, with the lock of it if there
  // is one. It may be called on any thread's behalf, but on the main thread. May be empty.
  std::function<void(std::function<void(UniqueFd lock)> done)> let_go;
  // The new process ended before it served: take back what can be taken back. May be empty.
  std::function<void()> take_back;
  // The new process serves: accept nothing more, finish what is under way, then call `done`. Sockets are closed without
  // a look at what waits in them, because the new process has them too.
  std::function<void(std::function<void()> done)> leave;
  std::function<size_t()> connections;  // that are left

  // --- in the process that follows, before its first version

  // What can be made ready for this version while the process before still serves. An Error ends this process. May be
  // empty.
  std::function<Result<void>(const std::shared_ptr<const Snapshot>& snapshot, const Node& node)> get_ready;
  std::function<void(const HandOverItem& item, UniqueFd socket)> inherit;
  std::function<void(UniqueFd lock)> inherit_lock;  // may be empty
  // The format of what the plane keeps on the disk; another one means that it starts empty. May be empty.
  std::string data_format;
};

}  // namespace tidegate
