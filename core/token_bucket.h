// SPDX-License-Identifier: Apache-2.0
// TokenBucket: a rate with a burst, in one word (GCRA, ITU-T I.371). The word holds the moment at which all taken
// tokens will be earned again. If that moment has passed, the bucket is full.
//
// Threads: any. Two callers at once never get more than the rate and the burst allow. Their times may arrive out of
// order.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tidegate {

struct TokenRate {
  uint64_t interval_ns = 0;  // time to earn one token; 0: no limit
  uint64_t burst = 1;        // tokens in a full bucket

  static constexpr TokenRate per_second(uint64_t tokens, uint64_t burst) {
    return tokens == 0 ? TokenRate{} : TokenRate{std::max<uint64_t>(1, 1'000'000'000 / tokens), burst};
  }
  uint64_t burst_ns() const { return burst * interval_ns; }
};

class TokenBucket {
 public:
  // Takes all `tokens`; if there are too few, takes none and returns false. `now_ns` is monotonic. A debt from a
  // stricter rate is reduced to the largest debt that this rate allows, so that it ends.
  bool take(const TokenRate& rate, uint64_t tokens, uint64_t now_ns) {
    uint64_t due_ns = due_ns_.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t standing_ns = std::clamp(due_ns, now_ns, now_ns + 2 * rate.burst_ns());
      const uint64_t next_ns = standing_ns + tokens * rate.interval_ns;
      const bool enough = next_ns <= now_ns + rate.burst_ns();
      if (!enough && standing_ns >= due_ns) return false;
      if (due_ns_.compare_exchange_weak(due_ns, enough ? next_ns : standing_ns, std::memory_order_relaxed)) {
        return enough;
      }
    }
  }
  // Takes the tokens even if there are too few. The debt is at most one burst, so that it ends.
  void charge(const TokenRate& rate, uint64_t tokens, uint64_t now_ns) {
    uint64_t due_ns = due_ns_.load(std::memory_order_relaxed);
    uint64_t next_ns;
    do {
      next_ns = std::min(std::max(due_ns, now_ns) + tokens * rate.interval_ns, now_ns + 2 * rate.burst_ns());
    } while (!due_ns_.compare_exchange_weak(due_ns, std::max(due_ns, next_ns), std::memory_order_relaxed));
  }
  // The number of tokens that could be taken now.
  uint64_t tokens(const TokenRate& rate, uint64_t now_ns) const {
    if (rate.interval_ns == 0) return rate.burst;
    const uint64_t due_ns = std::max(due_ns_.load(std::memory_order_relaxed), now_ns);
    const uint64_t full_ns = now_ns + rate.burst_ns();
    return due_ns >= full_ns ? 0 : (full_ns - due_ns) / rate.interval_ns;
  }
  uint64_t full_at_ns() const { return due_ns_.load(std::memory_order_relaxed); }
  void fill() { due_ns_.store(0, std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> due_ns_{0};
};

}  // namespace tidegate
