// SPDX-License-Identifier: Apache-2.0
// Idle: the wait of a worker when no frame comes. If the drivers have file descriptors, it sleeps in ppoll(2) until a
// frame or a wake-up comes. That costs no CPU and adds a few microseconds of latency. If they have none (a NIC that
// DPDK drives), it first spins and then sleeps longer and longer, up to a millisecond.
#pragma once

#include <poll.h>

#include <cstdint>
#include <vector>

#include "core/fd.h"

namespace tidegate::l4 {

class Idle {
 public:
  Idle();
  // Sets what to wait for from now on: `fds` of the worker's queues and punt devices. `all_pollable` is true if every
  // queue has one.
  void watch(const std::vector<int>& fds, bool all_pollable);

  // Waits at most `max_wait_ns`. `empty_bursts` is the number of empty bursts in a row.
  void wait(unsigned empty_bursts, uint64_t max_wait_ns);
  // Any thread may call it. It ends the current wait, or the next one.
  void wake();

  static constexpr unsigned kEmptyBurstsBeforeWait = 16;

 private:
  std::vector<pollfd> fds_;  // the first is wake_
  UniqueFd wake_;
  bool all_pollable_ = true;
};

}  // namespace tidegate::l4
