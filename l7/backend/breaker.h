// SPDX-License-Identifier: Apache-2.0
// Breaker: a circuit breaker (Nygard, "Release It!", 2007). It is closed while all is well, open when too many requests
// failed or were slow, and then half-open: exactly `trials` requests go through, and their results decide.
//
// All workers share it, without a lock. Its whole state is one word, so no worker ever sees half of a change. A trial
// is given out once. A result counts only for the period in which its permit was given.
//
// Requests are counted in kBuckets parts of the window. A part is one word too. It forgets an older window when it is
// used again.
//
// Threads: any.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "conf/model/pool_parts.h"

namespace tidegate::l7 {

class Breaker {
 public:
  enum class State : uint8_t { closed, open, half_open };
  // The permission for one request. The holder returns it once, by settle() or forgo().
  struct Permit {
    bool granted = false;
    bool trial = false;
    uint16_t period = 0;
  };
  enum class Result : uint8_t { good, slow, failed };
  // What a call changed, for log and counters. Exactly one caller is told of each change.
  enum class Change : uint8_t { none, opened, closed };

  // True if ask() would grant a permit now.
  bool would_grant(uint64_t now_ns, const PoolBreaker& config) const {
    const uint64_t seen = state_.load(std::memory_order_relaxed);
    return state_of(seen) == State::closed || would_grant_trial(seen, now_ns, config);
  }
  Permit ask(uint64_t now_ns, const PoolBreaker& config);
  Change settle(const Permit& permit, Result result, uint64_t now_ns, const PoolBreaker& config);
  // The result says nothing about the backend, because the client left. Another request may make the trial.
  void forgo(const Permit& permit);

  State state(uint64_t now_ns) const;
  struct Counts {
    uint32_t requests = 0, failed = 0, slow = 0;
  };
  Counts counts(uint64_t now_ns, const PoolBreaker& config) const;

  static constexpr uint32_t kBuckets = 10;

 private:
  // The state word: 2 bits State, 14 bits period, 48 bits of detail. Detail of open: the end of that state, in ms.
  // Detail of half-open: 24 bits for the number of trials given out, 24 bits for the successful ones.
  static constexpr uint64_t word(State state, uint16_t period, uint64_t detail) {
    return uint64_t{static_cast<uint8_t>(state)} << 62 | uint64_t{period & 0x3fffu} << 48 | detail;
  }
  static State state_of(uint64_t word) { return static_cast<State>(word >> 62); }
  static uint16_t period_of(uint64_t word) { return (word >> 48) & 0x3fff; }
  static uint64_t detail_of(uint64_t word) { return word & ((uint64_t{1} << 48) - 1); }

  static bool would_grant_trial(uint64_t seen, uint64_t now_ns, const PoolBreaker& config);
  Change settle_trial(const Permit& permit, Result result, uint64_t now_ns, const PoolBreaker& config);
  void count(Result result, uint64_t now_ns, const PoolBreaker& config);
  bool is_too_bad(uint64_t now_ns, const PoolBreaker& config) const;
  Change open_from(uint64_t closed_word, uint64_t now_ns, const PoolBreaker& config);
  void forget();

  std::atomic<uint64_t> state_{0};
  std::atomic<uint32_t> failures_in_a_row_{0};
  // Each: 16 bits epoch (which part of time), 16 bits requests, 16 failed, 16 slow.
  std::array<std::atomic<uint64_t>, kBuckets> buckets_{};
};

const char* name(Breaker::State state);

}  // namespace tidegate::l7
