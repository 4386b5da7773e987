// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/shared_quota.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/clock.h"

namespace tidegate::l7::policy {
namespace {

// A token bucket as in limiters.h, in microseconds of the server's clock: the state is the time at which the bucket is
// full again. It grants as many tokens as there are, but not more than requested. Needs Redis 5 or later.
constexpr const char* kScript = R"(
local interval, burst, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local full = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), now)
full = math.min(full, now + interval * burst)
local grant = math.min(want, math.floor((now + interval * burst - full) / interval))
if grant < 1 then return {0, full + interval - interval * burst - now, 0} end
full = full + grant * interval
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return {grant, 0, math.floor((now + interval * burst - full) / interval)}
)";

// What a state has, from the lowest bit: tokens, or tenths of a second; whether it is tenths; whether the server is
// being asked; until when it is valid (ms).
constexpr uint64_t kValueMask = (1 << 20) - 1, kIsWait = 1 << 20, kAsked = 1 << 21;
constexpr int kUntilShift = 22;
constexpr uint64_t kWaitUnitMs = 100;
constexpr int kLeftBits = 24;
constexpr uint64_t kLeftMask = (uint64_t{1} << kLeftBits) - 1;
constexpr uint64_t kLongestRefusalMs = 1'000;  // after this time at the latest, a new quota applies

struct State {
  uint64_t tokens, until_ms;
  bool asked;
  uint64_t wait_ms = 0;  // of a refusal: how long after `until_ms` the server will have a token
};
State unpack(uint64_t word) {
  const uint64_t value = word & kValueMask;
  const bool is_wait = (word & kIsWait) != 0;
  return {is_wait ? 0 : value, word >> kUntilShift, (word & kAsked) != 0, is_wait ? value * kWaitUnitMs : 0};
}
uint64_t pack(const State& state) {
  const bool is_wait = state.tokens == 0 && state.wait_ms != 0;
  const uint64_t value = is_wait ? std::min((state.wait_ms + kWaitUnitMs - 1) / kWaitUnitMs, kValueMask) : state.tokens;
  return value | (is_wait ? kIsWait : 0) | (state.asked ? kAsked : 0) | state.until_ms << kUntilShift;
}

}  // namespace

// The larger of a sixtieth of the quota and the tokens of 50 ms, within bounds. So few tokens lie unused at other
// proxies.
uint64_t SharedQuota::Terms::lease_of(uint64_t requests, uint64_t per_ms, uint64_t burst) {
  const uint64_t wanted = std::max(requests / 60, requests * 50 / per_ms);
  return std::clamp<uint64_t>(std::min(wanted, burst / 4), 1, 10'000);
}

void SharedQuota::Waiter::cancel() {
  cancelled_ = true;
  const MutexLock lock(mutex_);
  loop_ = nullptr;
}

void SharedQuota::Waiter::tell(const std::shared_ptr<Waiter>& waiter, bool failed) {
  waiter->failed_.store(failed, std::memory_order_relaxed);
  waiter->over_.store(true, std::memory_order_release);
  const MutexLock lock(waiter->mutex_);
  if (waiter->loop_ == nullptr) return;
  waiter->loop_->post([waiter] {
    if (!waiter->cancelled_) waiter->wake_();
  });
}

SharedQuota::SharedQuota(RedisLink::Options options, size_t keys, std::string prefix, bool tells_left)
    : prefix_(std::move(prefix)),
      table_(keys),
      left_(tells_left ? std::make_unique<LimitTable>(keys) : nullptr),
      link_(std::move(options), kScript) {}

void SharedQuota::note_left(uint64_t key, uint64_t left, uint64_t fill_ms, uint64_t now_ms) {
  std::atomic<uint64_t>& word =
      left_->find_or_add(key, now_ms * kNsPerMs, [](uint64_t known) { return (known >> kLeftBits) * kNsPerMs; });
  word.store((now_ms + fill_ms) << kLeftBits | std::min(left, kLeftMask), std::memory_order_relaxed);
}

uint64_t SharedQuota::left_of(uint64_t key) const {
  const std::atomic<uint64_t>* const word = left_ == nullptr ? nullptr : left_->find(key);
  return word == nullptr ? kUnknown : word->load(std::memory_order_relaxed) & kLeftMask;
}

std::atomic<uint64_t>& SharedQuota::state_of(uint64_t key, uint64_t now_ns) {
  return table_.find_or_add(key, now_ns, [now_ns](uint64_t word) {
    const State state = unpack(word);
    return state.asked ? now_ns + kNsPerS : state.until_ms * kNsPerMs;
  });
}

SharedQuota::Taken SharedQuota::take(uint64_t key, const Terms& terms, uint64_t now_ns) {
  std::atomic<uint64_t>& word = state_of(key, now_ns);
  const uint64_t now_ms = now_ns / kNsPerMs;
  uint64_t before = word.load(std::memory_order_relaxed);
  for (;;) {
    const State state = unpack(before);
    const bool holds = now_ms < state.until_ms;
    if (holds && state.tokens > 0) {
      State next = state;
      if (--next.tokens == 0) next.until_ms = 0;  // a used-up lease is not a refusal
      const bool ahead = !state.asked && next.tokens <= terms.lease / 4 && terms.lease > 4;
      next.asked = state.asked || ahead;
      if (!word.compare_exchange_weak(before, pack(next), std::memory_order_relaxed)) continue;
      if (ahead && !ask(key, terms)) word.fetch_and(~kAsked, std::memory_order_relaxed);
      const uint64_t left = left_of(key);
      return {Answer::allowed, 0, left == kUnknown ? kUnknown : left + next.tokens};
    }
    if (state.asked) return {Answer::asks};
    if (holds) return {Answer::refused, (state.until_ms - now_ms + state.wait_ms) * kNsPerMs};
    if (!link_.up()) return {Answer::failed};
    if (!word.compare_exchange_weak(before, pack({0, 0, true}), std::memory_order_relaxed)) continue;
    if (ask(key, terms)) return {Answer::asks};
    word.fetch_and(~kAsked, std::memory_order_relaxed);
    return {Answer::failed};
  }
}

SharedQuota::Answer SharedQuota::would_answer(uint64_t key, uint64_t now_ns) const {
  const std::atomic<uint64_t>* const word = table_.find(key);
  const State state = unpack(word == nullptr ? 0 : word->load(std::memory_order_relaxed));
  if (now_ns / kNsPerMs < state.until_ms) return state.tokens > 0 || state.asked ? Answer::allowed : Answer::refused;
  return link_.up() ? Answer::asks : Answer::failed;
}

bool SharedQuota::ask(uint64_t key, const Terms& terms) {
  return link_.eval(fmt::format("{}{:016x}", prefix_, key),
                    {std::to_string(terms.interval_us), std::to_string(terms.burst), std::to_string(terms.lease)},
                    [this, key, terms](const std::vector<int64_t>& answer) { learn(key, terms, answer); });
}

// Runs on the link's thread.
void SharedQuota::learn(uint64_t key, const Terms& terms, const std::vector<int64_t>& answer) {
  const bool failed = answer.size() < 2;
  const uint64_t now_ms = monotonic_ns() / kNsPerMs;
  const uint64_t full_ms = terms.interval_us * terms.burst / 1'000 + 1;
  if (left_ != nullptr && answer.size() > 2) {
    note_left(key, static_cast<uint64_t>(std::max<int64_t>(answer[2], 0)), full_ms, now_ms);
  }
  if (std::atomic<uint64_t>* const word = table_.find(key); word != nullptr) {
    uint64_t before = word->load(std::memory_order_relaxed);
    State next;
    do {
      const State state = unpack(before);
      next = state;
      next.asked = false;
      if (failed) continue;
      const uint64_t old = now_ms < state.until_ms ? state.tokens : 0;
      next.tokens = std::min(old + static_cast<uint64_t>(std::max<int64_t>(answer[0], 0)), kValueMask);
      // Unused tokens are kept for the time that the bucket takes to fill. A refusal is valid until half a lease is
      // there, so proxies that are all over the quota do not ask for each single token.
      const auto token_us = static_cast<uint64_t>(std::max<int64_t>(answer[1], 0));
      const uint64_t refusal_ms =
          std::min(std::max(token_us, terms.interval_us * terms.lease / 2) / 1'000 + 1, kLongestRefusalMs);
      next.until_ms = now_ms + (next.tokens > 0 ? full_ms : refusal_ms);
      next.wait_ms = token_us / 1'000 + 1 > refusal_ms ? token_us / 1'000 + 1 - refusal_ms : 0;
    } while (!word->compare_exchange_weak(before, pack(next), std::memory_order_relaxed));
  }
  std::vector<std::shared_ptr<Waiter>> waiters;
  {
    const MutexLock lock(mutex_);
    const auto found = waiters_.find(key);
    if (found == waiters_.end()) return;
    waiters = std::move(found->second);
    waiters_.erase(found);
  }
  for (const std::shared_ptr<Waiter>& waiter : waiters) Waiter::tell(waiter, failed);
}

void SharedQuota::wait(uint64_t key, const std::shared_ptr<Waiter>& waiter) {
  // learn() clears the mark before it takes the lock. So a waiter that sees the mark here will be woken by it.
  const MutexLock lock(mutex_);
  const std::atomic<uint64_t>* const word = table_.find(key);
  if (word != nullptr && unpack(word->load(std::memory_order_relaxed)).asked) {
    waiters_[key].push_back(waiter);
  } else {
    waiter->over_.store(true, std::memory_order_release);
  }
}

}  // namespace tidegate::l7::policy
