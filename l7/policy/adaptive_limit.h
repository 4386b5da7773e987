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
//
// Answers of one backend differ, so the mean of a window is uncertain. A window says how much, and no decision is made
// from what may be chance: there is a queue only if the least likely mean is longer than the base allows; a step of a
// probe takes more answers until it can tell; and the base falls only if several windows in a row agree. Without that,
// the base would become the shortest mean ever seen, and ordinary answers would look like a queue.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <optional>

#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

struct AdaptiveTerms {
  uint64_t least, most, initial;
  double tolerance;  // an answer time below this multiple of the base is no sign of a queue
};

// What the answers of one window say.
struct AdaptiveWindow {
  // The geometric mean of the answer times. In a queue all answers are longer. So a few very long answers are no sign
  // of a queue, and a few very short ones no sign that there is none.
  double mean_ns = 0;
  double error = 0;  // the standard error of the mean's logarithm
  uint64_t answers = 0;
  uint64_t took_ns = 0;
  uint64_t peak = 0;  // the most requests in progress at one time

  static constexpr double kSure = 2;  // standard errors
  double shortest_ns() const { return mean_ns * std::exp(-kSure * error); }
  double longest_ns() const { return mean_ns * std::exp(kSure * error); }
};

struct AdaptiveState {
  double limit = 0;  // 0: nothing has run yet
  double base_ns = 0;
  uint64_t base_at_ns = 0;  // when it was measured
  // Windows in a row that were surely below the base, and the longest time that any of them allows.
  uint32_t low_windows = 0;
  double low_ns = 0;
  // Used while the base is measured.
  // windows left of this step: the first one drains the queue, the last one is measured; 0: no probe
  uint32_t windows = 0;
  double fastest_ns = 0, fastest_error = 0;
  double limit_before = 0;
};

struct AdaptiveStep {
  static constexpr uint64_t kProbeNs = 30'000'000'000;
  static constexpr double kFaster = 0.8;  // if the mean falls below this fraction of it, there was a queue
  static constexpr uint32_t kLowWindows = 3;
  // A window that cannot tell goes on until it has so many answers, or has taken so long.
  static constexpr uint64_t kMostAnswers = 200;
  static constexpr uint64_t kLongestNs = 3'000'000'000;

  // Nothing: the window must go on.
  static std::optional<AdaptiveState> after(AdaptiveState state, const AdaptiveTerms& terms,
                                            const AdaptiveWindow& window, uint64_t now_ns) {
    if (state.windows > 0) return probe(state, terms, window, now_ns);
    const bool in_use = static_cast<double>(window.peak) * 2 >= state.limit;
    const bool due = state.base_ns == 0 || now_ns - state.base_at_ns >= kProbeNs;
    if (due && !can_tell(window, window.error)) return std::nullopt;
    if (due && in_use && state.limit > static_cast<double>(terms.least)) {
      state.fastest_ns = window.mean_ns;
      state.fastest_error = window.error;
      state.limit_before = state.limit;
      return halve(state, terms);
    }
    if (due) {
      set_base(state, window.mean_ns * std::exp(window.error), now_ns);
    } else {
      note_low(state, window, now_ns);
    }
    const double gradient = std::clamp(terms.tolerance * state.base_ns / window.shortest_ns(), 0.5, 1.0);
    const double wanted = state.limit * gradient + std::sqrt(state.limit) / 2;
    if (wanted > state.limit && !in_use) return state;
    state.limit = bounded((state.limit + wanted) / 2, terms);
    return state;
  }

 private:
  static double bounded(double limit, const AdaptiveTerms& terms) {
    return std::clamp(limit, static_cast<double>(terms.least), static_cast<double>(terms.most));
  }
  // Whether a difference of kFaster between this window and one with `other_error` would not be chance.
  static bool can_tell(const AdaptiveWindow& window, double other_error) {
    return AdaptiveWindow::kSure * std::hypot(window.error, other_error) <= -std::log(kFaster) ||
           window.answers >= kMostAnswers || window.took_ns >= kLongestNs;
  }
  static void set_base(AdaptiveState& state, double base_ns, uint64_t now_ns) {
    state.base_ns = base_ns;
    state.base_at_ns = now_ns;
    state.low_windows = 0;
  }
  static void note_low(AdaptiveState& state, const AdaptiveWindow& window, uint64_t now_ns) {
    const double longest_ns = window.longest_ns();
    if (longest_ns >= state.base_ns) {
      state.low_windows = 0;
      return;
    }
    state.low_ns = state.low_windows == 0 ? longest_ns : std::max(state.low_ns, longest_ns);
    if (++state.low_windows == kLowWindows) set_base(state, state.low_ns, now_ns);
  }
  static AdaptiveState halve(AdaptiveState state, const AdaptiveTerms& terms) {
    state.limit = bounded(state.limit / 2, terms);
    state.windows = 2;
    return state;
  }
  static std::optional<AdaptiveState> probe(AdaptiveState state, const AdaptiveTerms& terms,
                                            const AdaptiveWindow& window, uint64_t now_ns) {
    if (state.windows == 1 && !can_tell(window, state.fastest_error)) return std::nullopt;
    if (--state.windows > 0) return state;
    const bool faster = window.mean_ns < kFaster * state.fastest_ns;
    if (window.mean_ns < state.fastest_ns) {
      state.fastest_ns = window.mean_ns;
      state.fastest_error = window.error;
    }
    if (faster && state.limit > static_cast<double>(terms.least)) return halve(state, terms);
    set_base(state, state.fastest_ns * std::exp(state.fastest_error), now_ns);
    // The previous step was as fast as this one.
    state.limit = bounded(std::min(state.limit_before, faster ? state.limit : 2 * state.limit), terms);
    return state;
  }
};

// Threads: any. When a window is over, one thread evaluates it, and the others continue meanwhile.
class AdaptiveLimit final : public Runtime {
 public:
  static constexpr uint64_t kWindowNs = 100'000'000;
  static constexpr uint64_t kFewestAnswers = 20;        // a window with fewer answers continues
  static constexpr uint64_t kLookAgainNs = 25'000'000;  // at a window that must go on

  explicit AdaptiveLimit(uint64_t initial) : limit_(initial) { state_.limit = static_cast<double>(initial); }

  uint64_t limit(const AdaptiveTerms& terms) const {
    return std::clamp(limit_.load(std::memory_order_relaxed), terms.least, terms.most);
  }
  double base_ns() const { return base_ns_.load(std::memory_order_relaxed); }
  void note_running(uint64_t in_flight) {
    if (in_flight > peak_.load(std::memory_order_relaxed)) peak_.store(in_flight, std::memory_order_relaxed);
  }
  void note_answer(const AdaptiveTerms& terms, uint64_t took_ns, uint64_t now_ns) {
    const double log = std::log(static_cast<double>(std::max<uint64_t>(took_ns, 1'000)));
    const double above = std::clamp(log - reference_.load(std::memory_order_relaxed), -kMostAbove, kMostAbove);
    const auto scaled = static_cast<int64_t>(std::lround(above * kScale));
    squares_.fetch_add(scaled * scaled, std::memory_order_relaxed);
    const int64_t sums = sums_.fetch_add(kOneAnswer + scaled, std::memory_order_relaxed) + kOneAnswer + scaled;
    if (answers_of(sums) < kFewestAnswers || now_ns < window_end_ns_.load(std::memory_order_relaxed)) return;
    if (judging_.exchange(true, std::memory_order_acquire)) return;
    judge(terms, now_ns);
    judging_.store(false, std::memory_order_release);
  }

 private:
  // Logarithms are summed as their distance from a reference, the mean of the window before, in units of 1 / kScale.
  // The number of answers is in the upper bits of the same word, so that both are of the same answers.
  static constexpr double kScale = 4'096, kMostAbove = 16;
  static constexpr int kSumBits = 44;
  static constexpr int64_t kOneAnswer = int64_t{1} << kSumBits;
  static int64_t sum_of(int64_t sums) { return (sums << (64 - kSumBits)) >> (64 - kSumBits); }
  static uint64_t answers_of(int64_t sums) { return static_cast<uint64_t>((sums - sum_of(sums)) >> kSumBits); }

  void judge(const AdaptiveTerms& terms, uint64_t now_ns) {
    const int64_t sums = sums_.load(std::memory_order_relaxed), squares = squares_.load(std::memory_order_relaxed);
    const uint64_t answers = answers_of(sums);
    if (answers < kFewestAnswers) return;  // another thread has just evaluated this window
    if (begun_ns_ == 0) begun_ns_ = now_ns;
    const auto count = static_cast<double>(answers);
    const double mean = static_cast<double>(sum_of(sums)) / kScale / count;
    const double variance = static_cast<double>(squares) / (kScale * kScale) / count - mean * mean;
    const double log = reference_.load(std::memory_order_relaxed) + mean;
    AdaptiveWindow window;
    window.mean_ns = std::exp(log);
    window.error = std::sqrt(std::max(variance, 0.0) / (count - 1));
    window.answers = answers;
    window.took_ns = now_ns - begun_ns_;
    window.peak = peak_.load(std::memory_order_relaxed);
    const std::optional<AdaptiveState> next = AdaptiveStep::after(state_, terms, window, now_ns);
    if (!next) return window_end_ns_.store(now_ns + kLookAgainNs, std::memory_order_relaxed);
    state_ = *next;
    limit_.store(static_cast<uint64_t>(state_.limit), std::memory_order_relaxed);
    base_ns_.store(state_.base_ns, std::memory_order_relaxed);
    sums_.fetch_sub(sums, std::memory_order_relaxed);
    squares_.fetch_sub(squares, std::memory_order_relaxed);
    peak_.store(0, std::memory_order_relaxed);
    reference_.store(log, std::memory_order_relaxed);
    begun_ns_ = now_ns;
    // Long answers need a long window, because answers that began under the previous limit must not count for this one.
    window_end_ns_.store(now_ns + std::max<uint64_t>(kWindowNs, static_cast<uint64_t>(2 * window.mean_ns)),
                         std::memory_order_relaxed);
  }

  std::atomic<uint64_t> limit_;
  std::atomic<double> base_ns_{0};
  alignas(64) std::atomic<int64_t> sums_{0}, squares_{0};
  std::atomic<double> reference_{17.7};  // ln(50 ms): a guess for the first window
  std::atomic<uint64_t> peak_{0}, window_end_ns_{0};
  std::atomic<bool> judging_{false};
  // Used only by the thread that evaluates.
  uint64_t begun_ns_ = 0;  // when the window began; 0: the first one
  AdaptiveState state_;
};

}  // namespace tidegate::l7::policy
