// SPDX-License-Identifier: Apache-2.0
// MemoryBudget: the bytes of bodies that a worker may hold in addition to the fixed windows and buffers of its
// connections. Growing HTTP/2 windows and bodies that pools buffer share it (kHttp2GrownWindowBytes).
//
// Threads: the worker's.
#pragma once

#include <cstddef>

#include "core/assert.h"
#include "l7/limits.h"

namespace tidegate::l7 {

class MemoryBudget {
 public:
  // Returns false, and takes nothing, if not enough is left.
  bool take(size_t bytes) {
    if (bytes > kHttp2GrownWindowBytes - taken_) return false;
    taken_ += bytes;
    return true;
  }
  void give_back(size_t bytes) {
    TIDEGATE_ASSERT(bytes <= taken_, "no more is given back than was taken");
    taken_ -= bytes;
  }
  size_t taken() const { return taken_; }

 private:
  size_t taken_ = 0;
};

}  // namespace tidegate::l7
