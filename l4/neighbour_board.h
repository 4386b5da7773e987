// SPDX-License-Identifier: Apache-2.0
// NeighbourBoard: which backends and gateways do not answer for their MAC address, as the first worker sees it. That
// worker writes. The control thread reads, and derives tables that give these neighbours no new flows.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "l4/ids.h"

namespace tidegate::l4 {

class NeighbourBoard {
 public:
  bool is_silent(NeighbourId id) const { return silent_[index_of(id)].load(std::memory_order_relaxed); }
  // Grows with every change. If it is equal, nothing has changed.
  uint64_t changes() const { return changes_.load(std::memory_order_acquire); }
  uint64_t silent() const { return count_.load(std::memory_order_relaxed); }

  // Only one worker may call this.
  void tell(NeighbourId id, bool silent) {
    if (silent_[index_of(id)].exchange(silent, std::memory_order_relaxed) == silent) return;
    count_.fetch_add(silent ? 1 : UINT64_MAX, std::memory_order_relaxed);
    changes_.fetch_add(1, std::memory_order_release);
  }

 private:
  std::vector<std::atomic<bool>> silent_ = std::vector<std::atomic<bool>>(kMaxNeighbours);
  std::atomic<uint64_t> count_{0}, changes_{0};
};

}  // namespace tidegate::l4
