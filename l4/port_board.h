// SPDX-License-Identifier: Apache-2.0
// PortBoard: which ports may be used now. The control thread writes it. Each worker reads it once per turn of its loop,
// and reports when it does not use a removed port any more, so that the port's device can be closed.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace tidegate::l4 {

class PortBoard {
 public:
  explicit PortBoard(size_t ports) : usable_(ports) {
    for (std::atomic<bool>& port : usable_) port.store(true, std::memory_order_relaxed);
  }
  void set_usable(size_t port, bool usable) {
    usable_[port].store(usable, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  bool is_usable(size_t port) const { return usable_[port].load(std::memory_order_relaxed); }
  // Grows with each call of set_usable(). A worker that sees the new value also sees what was written to the ports
  // before that call.
  uint64_t generation() const { return generation_.load(std::memory_order_acquire); }

 private:
  std::vector<std::atomic<bool>> usable_;
  std::atomic<uint64_t> generation_{1};
};

}  // namespace tidegate::l4
