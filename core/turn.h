// SPDX-License-Identifier: Apache-2.0
// TurnCount: how much one connection has done in the current round of its loop. A connection that has used its share
// stops and asks EventLoop::call_again for the next round, so that the thread's other connections are served in
// between.
#pragma once

#include <cstdint>

namespace tidegate {

class TurnCount {
 public:
  // The part of `most` that is left in the round that began at `round_ns` (EventLoop::now_ns).
  uint64_t left(uint64_t round_ns, uint64_t most) {
    if (round_ns != round_ns_) {
      round_ns_ = round_ns;
      used_ = 0;
    }
    return used_ < most ? most - used_ : 0;
  }
  // Call after left() of the same round.
  void use(uint64_t amount) { used_ += amount; }

 private:
  uint64_t round_ns_ = 0;
  uint64_t used_ = 0;
};

}  // namespace tidegate
