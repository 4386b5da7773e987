// SPDX-License-Identifier: Apache-2.0
// Time, always in nanoseconds as uint64_t. Pure code gets the time as an argument and never includes this header.
#pragma once

#include <time.h>

#include <cstdint>

namespace tidegate {

constexpr uint64_t kNsPerMs = 1'000'000;
constexpr uint64_t kNsPerS = 1'000'000'000;

inline uint64_t clock_ns(clockid_t id) {
  timespec now{};
  ::clock_gettime(id, &now);
  return static_cast<uint64_t>(now.tv_sec) * kNsPerS + static_cast<uint64_t>(now.tv_nsec);
}

// For durations and deadlines: it never jumps.
inline uint64_t monotonic_ns() { return clock_ns(CLOCK_MONOTONIC); }
// For records that people and other hosts read: nanoseconds since the epoch.
inline uint64_t realtime_ns() { return clock_ns(CLOCK_REALTIME); }
// CPU time of this thread, to export how busy a worker really was.
inline uint64_t thread_cpu_ns() { return clock_ns(CLOCK_THREAD_CPUTIME_ID); }

}  // namespace tidegate
