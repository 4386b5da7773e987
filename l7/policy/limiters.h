// SPDX-License-Identifier: Apache-2.0
// The two algorithms of limits, as functions of a state, a time and a quota. They have no clock and no memory, so tests
// compare them with naive twins. State 0 means that the key was never seen.
#pragma once

#include <algorithm>
#include <cstdint>

namespace tidegate::l7::policy {

// The result of a limiter for one request.
struct Allowance {
  bool allowed = false;
  uint64_t state = 0;      // the new state, if the request is allowed
  uint64_t remaining = 0;  // requests that would be allowed now, after this one
  uint64_t reset_ns = 0;   // time from now until nothing of the quota is used
  uint64_t retry_ns = 0;   // if not allowed: time from now until one would be
};

// A token bucket as GCRA (ITU-T I.371), like core/token_bucket.h: the state is the time at which the bucket is full
// again. It also returns the rest of the quota, and can reserve turns that are at most `wait_ns` away.
struct RequestBucket {
  uint64_t interval_ns;  // time between two tokens, at least 1
  uint64_t burst;        // tokens of a full bucket, at least 1
  uint64_t wait_ns = 0;

  static uint64_t free_at_ns(uint64_t state) { return state; }
  // `retry_ns` of an allowed request: time from now until its turn. A debt from a stricter quota is reduced to the
  // largest that this quota allows, so that it ends.
  Allowance take(uint64_t state, uint64_t now_ns) const {
    const uint64_t depth_ns = interval_ns * burst;
    const uint64_t full_at_ns = std::clamp(state, now_ns, now_ns + depth_ns + wait_ns) + interval_ns;
    const uint64_t used_ns = full_at_ns - now_ns;
    if (used_ns <= depth_ns) return {true, full_at_ns, (depth_ns - used_ns) / interval_ns, used_ns, 0};
    const uint64_t turn_ns = used_ns - depth_ns;
    return {turn_ns <= wait_ns, full_at_ns, 0, used_ns - interval_ns, turn_ns};
  }
};

// The counts of two windows that begin at multiples of the window's length: the present one and the previous one. The
// previous one counts with the share of it that is within one window's length before now.
struct SlidingWindow {
  uint64_t window_ns;
  uint64_t most;  // at most kCountMask

  static constexpr int kCountBits = 21;
  static constexpr uint64_t kCountMask = (uint64_t{1} << kCountBits) - 1;
  static constexpr uint64_t kIndexMask = (uint64_t{1} << (64 - 2 * kCountBits)) - 1;

  struct Counts {
    uint64_t index, now, before;
  };
  static uint64_t pack(const Counts& counts) {
    return (counts.index & kIndexMask) << (2 * kCountBits) | counts.now << kCountBits | counts.before;
  }
  // The counts at `now_ns`. The window's index has 22 bits: a state that was not used for that many windows would look
  // like a new one.
  Counts at(uint64_t state, uint64_t now_ns) const {
    const uint64_t index = now_ns / window_ns & kIndexMask;
    const uint64_t its_index = state >> (2 * kCountBits), now = state >> kCountBits & kCountMask;
    if (its_index == index) return {index, now, state & kCountMask};
    if (its_index == ((index - 1) & kIndexMask)) return {index, 0, now};
    return {index, 0, 0};
  }
  // The time at which both windows are over, as far as `now_ns` shows.
  uint64_t free_at_ns(uint64_t state, uint64_t now_ns) const {
    const Counts counts = at(state, now_ns);
    const uint64_t begin_ns = now_ns - now_ns % window_ns;
    return counts.now != 0 ? begin_ns + 2 * window_ns : counts.before != 0 ? begin_ns + window_ns : 0;
  }
  Allowance take(uint64_t state, uint64_t now_ns) const {
    Counts counts = at(state, now_ns);
    const uint64_t elapsed_ns = now_ns % window_ns, left_ns = window_ns - elapsed_ns;
    const uint64_t carried = share(counts.before, left_ns);
    if (carried + counts.now + 1 <= most) {
      ++counts.now;
      return {true, pack(counts), most - carried - counts.now, left_ns + window_ns, 0};
    }
    return {false, state, 0, counts.now != 0 ? left_ns + window_ns : left_ns, retry_ns(counts, left_ns)};
  }

 private:
  // count * left / window, rounded up: a request of the previous window counts until its end.
  uint64_t share(uint64_t count, uint64_t left_ns) const {
    const auto product = static_cast<unsigned __int128>(count) * left_ns;
    return static_cast<uint64_t>((product + window_ns - 1) / window_ns);
  }
  // How long a window with `left_ns` left lasts until at most `room` of `count` still count.
  uint64_t until_ns(uint64_t count, uint64_t room, uint64_t left_ns) const {
    if (count <= room) return 0;
    const auto may_be_left = static_cast<uint64_t>(static_cast<unsigned __int128>(room) * window_ns / count);
    return left_ns - std::min(left_ns, may_be_left);
  }
  uint64_t retry_ns(const Counts& counts, uint64_t left_ns) const {
    if (counts.now < most) return std::max<uint64_t>(1, until_ns(counts.before, most - counts.now - 1, left_ns));
    return left_ns + until_ns(counts.now, most - 1, window_ns);
  }
};

}  // namespace tidegate::l7::policy
