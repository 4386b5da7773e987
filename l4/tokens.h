// SPDX-License-Identifier: Apache-2.0
// Token buckets on the workers' clock, which counts milliseconds and wraps after 49 days. A bucket is two numbers: the
// spent tokens in thousandths, and when they were counted. All zero is a full bucket. core's TokenBucket needs a clock
// of 64 bits and is too large for a table of sources.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace tidegate::l4 {

// Tokens per second, and the tokens in a full bucket. A bucket becomes full within kFullAfterMs.
struct Rate {
  uint32_t per_second = 0;  // 0: no limit
  uint32_t burst = 0;       // at most 4,000,000
};

constexpr uint32_t kFullAfterMs = 60'000;
constexpr uint64_t kSpentByToken = 1'000;

// The tokens still spent at `now_ms`, if `spent` were spent at `counted_ms`. `counted_ms` may be a little later than
// `now_ms`, because it may come from another worker's clock.
inline uint64_t still_spent(uint32_t spent, uint32_t counted_ms, uint32_t now_ms, const Rate& rate) {
  const uint64_t capped = std::min<uint64_t>(spent, rate.burst * kSpentByToken);
  const auto passed_ms = static_cast<int32_t>(now_ms - counted_ms);
  if (passed_ms <= 0 && passed_ms > -static_cast<int32_t>(kFullAfterMs)) return capped;
  if (passed_ms < 0 || passed_ms > static_cast<int32_t>(kFullAfterMs)) return 0;
  // A rate in tokens per second equals the same rate in thousandths of tokens per millisecond.
  const uint64_t earned = static_cast<uint64_t>(passed_ms) * rate.per_second;
  return capped > earned ? capped - earned : 0;
}

inline bool leaves_room(uint64_t spent, uint64_t tokens, const Rate& rate) {
  return spent + tokens * kSpentByToken <= rate.burst * kSpentByToken;
}

// A bucket that all workers share. Any thread.
class SharedTokens {
 public:
  // Takes all `tokens`; if there are too few, takes none and returns false.
  bool take(const Rate& rate, uint64_t tokens, uint32_t now_ms) {
    uint64_t word = word_.load(std::memory_order_relaxed);
    for (;;) {
      const auto counted_ms = static_cast<uint32_t>(word >> 32);
      const uint64_t spent = still_spent(static_cast<uint32_t>(word), counted_ms, now_ms, rate);
      if (!leaves_room(spent, tokens, rate)) return false;
      const bool is_later = static_cast<int32_t>(now_ms - counted_ms) > 0 || spent == 0;
      const uint64_t next = uint64_t{is_later ? now_ms : counted_ms} << 32 | (spent + tokens * kSpentByToken);
      if (word_.compare_exchange_weak(word, next, std::memory_order_relaxed)) return true;
    }
  }
  // Tokens that could be taken now.
  uint64_t left(const Rate& rate, uint32_t now_ms) const {
    const uint64_t word = word_.load(std::memory_order_relaxed);
    const uint64_t spent = still_spent(static_cast<uint32_t>(word), static_cast<uint32_t>(word >> 32), now_ms, rate);
    return (rate.burst * kSpentByToken - spent) / kSpentByToken;
  }

 private:
  std::atomic<uint64_t> word_{0};
};

// The tokens that one worker has taken from a shared bucket and not used yet. A worker takes a thousandth of the rate
// at a time, divided by the number of workers. So a limit of R per second is exceeded once by at most R/1000, or by one
// token per worker.
struct TokenShare {
  uint32_t held = 0;

  bool take(SharedTokens& shared, const Rate& rate, uint32_t workers, uint32_t now_ms) {
    if (held != 0) {
      --held;
      return true;
    }
    const uint32_t portion = std::clamp<uint32_t>(rate.per_second / (1'000 * workers), 1, std::max(1u, rate.burst));
    if (shared.take(rate, portion, now_ms)) {
      held = portion - 1;
      return true;
    }
    return portion > 1 && shared.take(rate, 1, now_ms);
  }
};

}  // namespace tidegate::l4
