// SPDX-License-Identifier: Apache-2.0
// ConflictBoard: the stations that claim addresses of ours, or answer for addresses that we left to others
// (l4/left_vips.h). Workers report them, and the control thread takes them. If the board is busy or full, a worker does
// not report the conflict, but still counts it.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "core/mutex.h"
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
    if (!mutex_.try_lock()) return;
    const bool known = std::any_of(conflicts_.begin(), conflicts_.end(),
                                   [&](const AddressConflict& c) { return c.address == conflict.address; });
    if (!known && conflicts_.size() < kMaxConflicts) conflicts_.push_back(conflict);
    mutex_.unlock();
  }
  std::vector<AddressConflict> take() {
    std::vector<AddressConflict> taken;
    taken.reserve(kMaxConflicts);
    const MutexLock lock(mutex_);
    std::swap(taken, conflicts_);
    return taken;
  }

 private:
  Mutex mutex_;
  std::vector<AddressConflict> conflicts_ TIDEGATE_GUARDED_BY(mutex_);
};

}  // namespace tidegate::l4
