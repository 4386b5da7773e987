// SPDX-License-Identifier: Apache-2.0
// A concurrency limit that is found by measuring. AdaptiveStep is the algorithm, as a function of the results of one
// window. AdaptiveLimit is its state, shared by all workers.
//
// The idea is that of gradient limits (TCP Vegas; Netflix' concurrency-limits; Envoy's adaptive concurrency). A backend
// without load answers in a certain time, the base. Answers that take longer have waited in a queue. So the limit is
// multiplied by base / measured. Then a little is added, because a limit must also be able to grow into new capacity.
//
// The base must be measured without a queue. At the start, and then every kProbeNs while the limit is in use, the limit
// is halved until answers get no faster. A limit that is not half used is left alone: the measured time is the base
// already, and no request is refused only to measure.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>

#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

struct AdaptiveTerms {
  uint64_t least, most, initial;
  double tolerance;  // an answer time below this multiple of the base is no sign of a queue
};

struct AdaptiveState {
  double limit = 0;  // 0: nothing has run yet
  double base_ns = 0;
  uint64_t base_at_ns = 0;  // when it was measured
  // Used while the base is measured.
  // windows left of this step: the first one drains the queue, the last one is measured; 0: no probe
  uint32_t windows = 0;
  double fastest_ns = 0;
  double limit_before = 0;
};

struct AdaptiveStep {
  static constexpr uint64_t kProbeNs = 30'000'000'000;
  static constexpr double kFaster = 0.8;  // if the mean falls below this fraction of it, there was a queue

  // `mean_ns`: mean answer time of the window. `peak`: the most requests in progress at one time.
  static AdaptiveState after(AdaptiveState state, const AdaptiveTerms& terms, double mean_ns, uint64_t peak,
                             uint64_t now_ns) {
    const bool in_use = static_cast<double>(peak) * 2 >= state.limit;
    if (state.windows > 0) return probe(state, terms, mean_ns, now_ns);
    const bool due = state.base_ns == 0 || now_ns - state.base_at_ns >= kProbeNs;
    if (due && in_use && state.limit > static_cast<double>(terms.least)) {
      state.fastest_ns = mean_ns;
      state.limit_before = state.limit;
      return halve(state, terms);
    }
    if (due || mean_ns < state.base_ns) {
      state.base_ns = mean_ns;
      state.base_at_ns = now_ns;
    }
    const double gradient = std::clamp(terms.tolerance * state.base_ns / mean_ns, 0.5, 1.0);
    const double wanted = state.limit * gradient + std::sqrt(state.limit) / 2;
    if (wanted > state.limit && !in_use) return state;
    state.limit = bounded((state.limit + wanted) / 2, terms);
    return state;
  }

 private:
  static double bounded(double limit, const AdaptiveTerms& terms) {
    return std::clamp(limit, static_cast<double>(terms.least), static_cast<double>(terms.most));
  }
  static AdaptiveState halve(AdaptiveState state, const AdaptiveTerms& terms) {
    state.limit = bounded(state.limit / 2, terms);
    state.windows = 2;
    return state;
  }
  static AdaptiveState probe(AdaptiveState state, const AdaptiveTerms& terms, double mean_ns, uint64_t now_ns) {
    if (--state.windows > 0) return state;
    const bool faster = mean_ns < kFaster * state.fastest_ns;
    state.fastest_ns = std::min(mean_ns, state.fastest_ns);
    if (faster && state.limit > static_cast<double>(terms.least)) return halve(state, terms);
    state.base_ns = state.fastest_ns;
    state.base_at_ns = now_ns;
    // The previous step was as fast as this one.
    state.limit = bounded(std::min(state.limit_before, faster ? state.limit : 2 * state.limit), terms);
    return state;
  }
};

// Threads: any. When a window is over, one thread evaluates it, and the others continue meanwhile.
class AdaptiveLimit final : public Runtime {
 public:
  static constexpr uint64_t kWindowNs = 100'000'000;
  static constexpr uint64_t kFewestAnswers = 20;  // a window with fewer answers continues

  // The mean is the harmonic one, of speeds. In a queue all answers are longer, so a few very long answers are no sign
  // of a queue.
  static constexpr uint64_t kSpeedUnit = 1'000'000'000'000'000;

  explicit AdaptiveLimit(uint64_t initial) : limit_(initial) { state_.limit = static_cast<double>(initial); }

  uint64_t limit(const AdaptiveTerms& terms) const {
    return std::clamp(limit_.load(std::memory_order_relaxed), terms.least, terms.most);
  }
  double base_ns() const { return base_ns_.load(std::memory_order_relaxed); }
  void note_running(uint64_t in_flight) {
    if (in_flight > peak_.load(std::memory_order_relaxed)) peak_.store(in_flight, std::memory_order_relaxed);
  }
  void note_answer(const AdaptiveTerms& terms, uint64_t took_ns, uint64_t now_ns) {
    speed_.fetch_add(kSpeedUnit / std::max<uint64_t>(took_ns, 1'000), std::memory_order_relaxed);
    const uint64_t answers = answers_.fetch_add(1, std::memory_order_relaxed) + 1;
    if (answers < kFewestAnswers || now_ns < window_end_ns_.load(std::memory_order_relaxed)) return;
    if (judging_.exchange(true, std::memory_order_acquire)) return;
    const uint64_t counted = answers_.exchange(0, std::memory_order_relaxed);
    const uint64_t speed = speed_.exchange(0, std::memory_order_relaxed);
    const uint64_t peak = peak_.exchange(0, std::memory_order_relaxed);
    if (counted > 0) {
      const double mean_ns = static_cast<double>(counted) * static_cast<double>(kSpeedUnit) /
                             static_cast<double>(std::max<uint64_t>(speed, 1));
      state_ = AdaptiveStep::after(state_, terms, mean_ns, peak, now_ns);
      limit_.store(static_cast<uint64_t>(state_.limit), std::memory_order_relaxed);
      base_ns_.store(state_.base_ns, std::memory_order_relaxed);
      // Long answers need a long window, because answers that began under the previous limit must not count for this
      // one.
      window_end_ns_.store(now_ns + std::max<uint64_t>(kWindowNs, static_cast<uint64_t>(2 * mean_ns)),
                           std::memory_order_relaxed);
    }
    judging_.store(false, std::memory_order_release);
  }

 private:
  std::atomic<uint64_t> limit_;
  std::atomic<double> base_ns_{0};
  alignas(64) std::atomic<uint64_t> speed_{0}, answers_{0}, peak_{0}, window_end_ns_{0};
  std::atomic<bool> judging_{false};
  AdaptiveState state_;  // used only by the thread that evaluates
};

}  // namespace tidegate::l7::policy
