// SPDX-License-Identifier: Apache-2.0
// PortBoard: which ports may be used now. The control thread writes it. Each worker reads it once per turn of its loop,
// and reports when it has stopped using a removed port. Then the port's device can be closed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidegate::l4 {

class PortBoard {
 public:
  explicit PortBoard(size_t ports) : usable_(ports), polled_(ports) {
    for (std::atomic<bool>& port : usable_) port.store(true, std::memory_order_relaxed);
    for (std::atomic<bool>& port : polled_) port.store(true, std::memory_order_relaxed);
  }
  // `polled`: workers go on to receive from a port that is left out of decisions, as LACP needs it.
  void set_usable(size_t port, bool usable, bool polled = false) {
    usable_[port].store(usable, std::memory_order_relaxed);
    polled_[port].store(usable || polled, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  bool is_usable(size_t port) const { return usable_[port].load(std::memory_order_relaxed); }
  bool is_polled(size_t port) const { return polled_[port].load(std::memory_order_relaxed); }
  // Asks the workers to announce their addresses again: the switch has to learn another way to them.
  void announce() {
    announcements_.fetch_add(1, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  uint64_t announcements() const { return announcements_.load(std::memory_order_relaxed); }
  // Grows with each call of set_usable() and announce(). A worker that sees the new value also sees what was written to
  // the ports before that call.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  std::vector<std::atomic<bool>> usable_, polled_;
  std::atomic<uint64_t> announcements_{0};
  std::atomic<uint64_t> generation_{1};
};

}  // namespace tidegate::l4
