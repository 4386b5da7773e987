// SPDX-License-Identifier: Apache-2.0
// HeldReset: a RST_STREAM (NO_ERROR) that waits for kHttp2ResetDelayMs. It tells a client to stop the body of a request
// that is answered already. curl 7.88 takes the answer for broken if it reads the answer's end and the reset at once.
#pragma once

#include <cstdint>

#include "core/clock.h"
#include "l7/limits.h"

namespace tidegate::l7 {

class HeldReset {
 public:
  void hold(uint64_t now_ns) { due_ns_ = now_ns + kHttp2ResetDelayMs * kNsPerMs; }
  bool held() const { return due_ns_ != 0; }
  // When it is to be sent; monotonic. Only while held().
  uint64_t due_ns() const { return due_ns_; }
  // True once, when its time has come: the caller sends it.
  bool take_due(uint64_t now_ns) {
    if (due_ns_ == 0 || due_ns_ > now_ns) return false;
    due_ns_ = 0;
    return true;
  }

 private:
  uint64_t due_ns_ = 0;  // 0: none is held
};

}  // namespace tidegate::l7
