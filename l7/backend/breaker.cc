// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/breaker.h"

#include <algorithm>

#include "core/clock.h"

namespace tidegate::l7 {
namespace {

constexpr uint64_t kMost = 0xffff;  // the most that a part of the window can count

// One part of the window.
struct Bucket {
  uint16_t epoch = 0;
  uint64_t requests = 0, failed = 0, slow = 0;

  static Bucket of(uint64_t word) {
    return {static_cast<uint16_t>(word >> 48), word >> 32 & kMost, word >> 16 & kMost, word & kMost};
  }
  uint64_t word() const { return uint64_t{epoch} << 48 | requests << 32 | failed << 16 | slow; }
};

uint64_t part_ns(const PoolBreaker& config) {
  return std::max<uint64_t>(1, config.window_ms * kNsPerMs / Breaker::kBuckets);
}

constexpr uint64_t kOneTrial = uint64_t{1} << 24;
constexpr uint64_t given(uint64_t detail) { return detail >> 24; }
constexpr uint64_t went_well(uint64_t detail) { return detail & (kOneTrial - 1); }

}  // namespace

const char* name(Breaker::State state) {
  switch (state) {
    case Breaker::State::closed:
      return "closed";
    case Breaker::State::open:
      return "open";
    case Breaker::State::half_open:
      break;
  }
  return "half_open";
}

// Call it only if the breaker is open or half-open.
bool Breaker::would_grant_trial(uint64_t seen, uint64_t now_ns, const PoolBreaker& config) {
  if (state_of(seen) == State::open) return now_ns / kNsPerMs >= detail_of(seen);
  return given(detail_of(seen)) < config.trials;
}

Breaker::Permit Breaker::ask(uint64_t now_ns, const PoolBreaker& config) {
  uint64_t seen = state_.load(std::memory_order_relaxed);
  for (;;) {
    uint64_t next = 0;
    switch (state_of(seen)) {
      case State::closed:
        return {.granted = true, .trial = false, .period = period_of(seen)};
      case State::open:
        if (now_ns / kNsPerMs < detail_of(seen)) return {};
        next = word(State::half_open, period_of(seen) + 1, kOneTrial);
        break;
      case State::half_open:
        if (given(detail_of(seen)) >= config.trials) return {};
        next = seen + kOneTrial;
        break;
    }
    if (state_.compare_exchange_weak(seen, next, std::memory_order_relaxed)) {
      return {.granted = true, .trial = true, .period = period_of(next)};
    }
  }
}

Breaker::Change Breaker::settle(const Permit& permit, Result result, uint64_t now_ns, const PoolBreaker& config) {
  if (!permit.granted) return Change::none;
  if (permit.trial) return settle_trial(permit, result, now_ns, config);
  const uint64_t seen = state_.load(std::memory_order_relaxed);
  // Requests from before the breaker opened say nothing about the present.
  if (state_of(seen) != State::closed || period_of(seen) != permit.period) return Change::none;
  count(result, now_ns, config);
  if (result == Result::good) {
    // A store would take the cache line from the other workers. So the store is left out if nothing changes.
    if (failures_in_a_row_.load(std::memory_order_relaxed) != 0) failures_in_a_row_.store(0, std::memory_order_relaxed);
    return Change::none;
  }
  if (result == Result::failed) {
    const uint32_t in_a_row = failures_in_a_row_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (config.consecutive_failures != 0 && in_a_row >= config.consecutive_failures) {
      return open_from(seen, now_ns, config);
    }
  } else {
    failures_in_a_row_.store(0, std::memory_order_relaxed);
  }
  return is_too_bad(now_ns, config) ? open_from(seen, now_ns, config) : Change::none;
}

Breaker::Change Breaker::settle_trial(const Permit& permit, Result result, uint64_t now_ns, const PoolBreaker& config) {
  uint64_t seen = state_.load(std::memory_order_relaxed);
  for (;;) {
    if (state_of(seen) != State::half_open || period_of(seen) != permit.period) return Change::none;
    if (result != Result::good) return open_from(seen, now_ns, config);
    const uint64_t next = seen + 1;
    const bool is_last = went_well(detail_of(next)) >= config.trials;
    if (is_last) forget();  // before anyone counts in the new period
    const uint64_t wanted = is_last ? word(State::closed, period_of(seen) + 1, 0) : next;
    if (state_.compare_exchange_weak(seen, wanted, std::memory_order_relaxed)) {
      return is_last ? Change::closed : Change::none;
    }
  }
}

void Breaker::forgo(const Permit& permit) {
  if (!permit.granted || !permit.trial) return;
  uint64_t seen = state_.load(std::memory_order_relaxed);
  while (state_of(seen) == State::half_open && period_of(seen) == permit.period && given(detail_of(seen)) > 0) {
    if (state_.compare_exchange_weak(seen, seen - kOneTrial, std::memory_order_relaxed)) return;
  }
}

Breaker::Change Breaker::open_from(uint64_t seen, uint64_t now_ns, const PoolBreaker& config) {
  const uint64_t until_ms = now_ns / kNsPerMs + config.open_ms;
  while (!state_.compare_exchange_weak(seen, word(State::open, period_of(seen) + 1, until_ms),
                                       std::memory_order_relaxed)) {
    // Another trial may have ended meanwhile. Results of another period do not count here.
    if (state_of(seen) == State::open) return Change::none;
  }
  return Change::opened;
}

void Breaker::forget() {
  for (std::atomic<uint64_t>& bucket : buckets_) bucket.store(0, std::memory_order_relaxed);
  failures_in_a_row_.store(0, std::memory_order_relaxed);
}

void Breaker::count(Result result, uint64_t now_ns, const PoolBreaker& config) {
  const uint64_t part = now_ns / part_ns(config);
  std::atomic<uint64_t>& slot = buckets_[part % kBuckets];
  uint64_t seen = slot.load(std::memory_order_relaxed);
  uint64_t wanted = 0;
  do {
    Bucket bucket = Bucket::of(seen);
    const auto epoch = static_cast<uint16_t>(part / kBuckets + 1);
    if (bucket.epoch != epoch) bucket = Bucket{.epoch = epoch};
    if (bucket.requests == kMost) {  // full: all counts are halved, so that the rates stay the same
      bucket.requests /= 2;
      bucket.failed /= 2;
      bucket.slow /= 2;
    }
    ++bucket.requests;
    bucket.failed += result == Result::failed ? 1 : 0;
    bucket.slow += result == Result::slow ? 1 : 0;
    wanted = bucket.word();
  } while (!slot.compare_exchange_weak(seen, wanted, std::memory_order_relaxed));
}

Breaker::Counts Breaker::counts(uint64_t now_ns, const PoolBreaker& config) const {
  const uint64_t part = now_ns / part_ns(config);
  Counts sum;
  for (uint64_t back = 0; back < kBuckets && back <= part; ++back) {
    const Bucket bucket = Bucket::of(buckets_[(part - back) % kBuckets].load(std::memory_order_relaxed));
    if (bucket.epoch != static_cast<uint16_t>((part - back) / kBuckets + 1)) continue;
    sum.requests += static_cast<uint32_t>(bucket.requests);
    sum.failed += static_cast<uint32_t>(bucket.failed);
    sum.slow += static_cast<uint32_t>(bucket.slow);
  }
  return sum;
}

bool Breaker::is_too_bad(uint64_t now_ns, const PoolBreaker& config) const {
  const Counts sum = counts(now_ns, config);
  if (sum.requests < config.minimum_requests) return false;
  const double requests = sum.requests;
  if (config.error_rate > 0 && sum.failed >= config.error_rate * requests) return true;
  return config.slow_ms > 0 && config.slow_rate > 0 && sum.slow >= config.slow_rate * requests;
}

Breaker::State Breaker::state(uint64_t now_ns) const {
  const uint64_t seen = state_.load(std::memory_order_relaxed);
  const State state = state_of(seen);
  return state == State::open && now_ns / kNsPerMs >= detail_of(seen) ? State::half_open : state;
}

}  // namespace tidegate::l7
