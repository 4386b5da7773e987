// SPDX-License-Identifier: Apache-2.0
// How long an event loop waits for a timer.
#pragma once

#include <cstdint>

#include "core/clock.h"

namespace tidegate {

// The length of one wait for a timer that is due in `left_ns`. Linux may end a wait late by a thousandth of it, or by
// five thousandths if the process has a nice value above 0 (select_estimate_accuracy() in fs/select.c). That is 10 or
// 50 ms for a timer of 10 s. So a long wait ends early, by more than that share, and a short one for the rest follows.
// A timer then fires at most 1 ms late.
constexpr uint64_t wait_for_timer_ns(uint64_t left_ns) {
  constexpr uint64_t kExactWaitNs = 100 * kNsPerMs;
  return left_ns <= kExactWaitNs ? left_ns : left_ns - left_ns / 128;
}

}  // namespace tidegate
