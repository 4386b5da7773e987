// SPDX-License-Identifier: Apache-2.0
// Idle: how a worker waits when nothing comes. Where the drivers have descriptors it sleeps in ppoll(2) until a frame
// or a wake-up, which costs no CPU and a few microseconds of latency; where they have none (a NIC that DPDK drives) it
// first spins and then naps longer and longer, up to a millisecond.
#pragma once

#include <poll.h>

#include <cstdint>
#include <vector>

#include "core/fd.h"

namespace tidegate::l4 {

class Idle {
 public:
  Idle();
  // From now on. `fds` of the worker's queues and punt devices; `all_pollable` when no queue lacks one.
  void watch(const std::vector<int>& fds, bool all_pollable);

  // At most `max_wait_ns`. `empty_bursts` in a row have brought nothing.
  void wait(unsigned empty_bursts, uint64_t max_wait_ns);
  // Any thread: ends a wait, or the next one.
  void wake();

  static constexpr unsigned kEmptyBurstsBeforeWait = 16;

 private:
  std::vector<pollfd> fds_;  // the first is wake_
  UniqueFd wake_;
  bool all_pollable_ = true;
};

}  // namespace tidegate::l4
