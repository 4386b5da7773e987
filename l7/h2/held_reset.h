// SPDX-License-Identifier: Apache-2.0
// HeldReset: a RST_STREAM (NO_ERROR) that waits for kHttp2ResetDelayMs. It tells a client to stop sending the body of a
// request that was already answered. curl 7.88 considers the answer broken if it reads the end of the answer and the
// reset together.
#pragma once

#include <cstdint>

#include "core/clock.h"
#include "l7/limits.h"

namespace tidegate::l7 {

class HeldReset {
 public:
  void hold(uint64_t now_ns) { due_ns_ = now_ns + kHttp2ResetDelayMs * kNsPerMs; }
  bool held() const { return due_ns_ != 0; }
  // When it must be sent; monotonic. Only valid while held().
  uint64_t due_ns() const { return due_ns_; }
  // Returns true once, when its time has come. Then the caller sends it.
  bool take_due(uint64_t now_ns) {
    if (due_ns_ == 0 || due_ns_ > now_ns) return false;
    due_ns_ = 0;
    return true;
  }

 private:
  uint64_t due_ns_ = 0;  // 0: none is held
};

}  // namespace tidegate::l7
