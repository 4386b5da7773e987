// SPDX-License-Identifier: Apache-2.0
// ConflictBoard: the stations that claim addresses of ours. Workers report them, and the control thread logs them. If
// the board is busy or full, a worker does not report the conflict, but still counts it.
#pragma once

#include <algorithm>
#include <mutex>
#include <utility>
#include <vector>

#include "l4/limits.h"
#include "l4/wire.h"

namespace tidegate::l4 {

struct AddressConflict {
  IpAddress address;
  Mac claimed_by;
  uint16_t port = 0;
};

class ConflictBoard {
 public:
  ConflictBoard() { conflicts_.reserve(kMaxConflicts); }

  void tell(const AddressConflict& conflict) {
    const std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock || conflicts_.size() == kMaxConflicts) return;
    const bool known = std::any_of(conflicts_.begin(), conflicts_.end(),
                                   [&](const AddressConflict& c) { return c.address == conflict.address; });
    if (!known) conflicts_.push_back(conflict);
  }
  std::vector<AddressConflict> take() {
    std::vector<AddressConflict> taken;
    taken.reserve(kMaxConflicts);
    const std::lock_guard lock(mutex_);
    std::swap(taken, conflicts_);
    return taken;
  }

 private:
  std::mutex mutex_;
  std::vector<AddressConflict> conflicts_;
};

}  // namespace tidegate::l4
