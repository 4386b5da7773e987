// SPDX-License-Identifier: Apache-2.0
// The adaptive limit with simulated backends.
#include "l7/policy/adaptive_limit.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <queue>
#include <random>
#include <tuple>
#include <vector>

namespace tidegate::l7::test::adaptive_limit_test {

using policy::AdaptiveState;
using policy::AdaptiveStep;
using policy::AdaptiveTerms;
using policy::AdaptiveWindow;

// A backend that works on `workers` requests at one time. The others wait in its queue, because its clients ask for
// more than it can do. It computes what a window of 100 ms shows under a limit: the mean answer time, and how many
// requests ran.
struct Backend {
  double workers, answer_ns;
  double wanted = 1e9;  // requests that clients would have in progress
  double running(double limit) const { return std::min(limit, wanted); }
  double mean_ns(double limit) const { return answer_ns * std::max(1.0, running(limit) / workers); }
  // As a share of its capacity.
  double goodput(double limit) const { return std::min(1.0, running(limit) / workers); }
};

struct Trial {
  AdaptiveState state;
  uint64_t now_ns = 1'000'000'000;
  double least_goodput = 1, most_ns = 0, goodput = 0;
  int windows = 0;
  void over(const Backend& backend, const AdaptiveTerms& terms, double seconds) {
    least_goodput = 1, most_ns = goodput = 0, windows = 0;
    for (double s = 0; s < seconds; s += 0.1, ++windows) {
      least_goodput = std::min(least_goodput, backend.goodput(state.limit));
      goodput += backend.goodput(state.limit);
      most_ns = std::max(most_ns, backend.mean_ns(state.limit));
      AdaptiveWindow window;  // of answers that all take the same time
      window.mean_ns = backend.mean_ns(state.limit);
      window.answers = 20;
      window.took_ns = 100'000'000;
      window.peak = static_cast<uint64_t>(std::floor(backend.running(state.limit)));
      state = *AdaptiveStep::after(state, terms, window, now_ns);
      now_ns += 100'000'000;
    }
    goodput /= windows;
  }
};

TEST(AdaptiveStep, FindsTheWorkersOfABackendThatIsAskedForFarMore) {
  const AdaptiveTerms terms{4, 1'000, 20, 1.3};
  for (const double workers : {4.0, 8.0, 16.0, 50.0, 200.0}) {
    Trial run;
    run.state.limit = 20;
    const Backend backend{workers, 10e6};
    run.over(backend, terms, 20);  // from above or from below
    EXPECT_NEAR(run.state.base_ns, backend.answer_ns, 0.2 * backend.answer_ns) << workers;
    run.over(backend, terms, 300);
    EXPECT_GE(run.goodput, 0.95) << workers;
    EXPECT_LE(run.most_ns, 2 * backend.answer_ns) << workers;
  }
}

TEST(AdaptiveStep, LearnsThatABackendHasBecomeSlowerOrFaster) {
  const AdaptiveTerms terms{4, 1'000, 20, 1.3};
  Trial run;
  run.state.limit = 20;
  run.over({16, 10e6}, terms, 40);
  run.over({16, 30e6}, terms, 40);  // the same workers, and each answer takes three times as long
  run.over({16, 30e6}, terms, 60);
  EXPECT_GE(run.goodput, 0.9);
  run.over({16, 5e6}, terms, 40);
  run.over({16, 5e6}, terms, 60);
  EXPECT_GE(run.goodput, 0.9);
  EXPECT_LE(run.most_ns, 2 * 5e6);
}

// The honest twin: clients that ask for less than the backend can do are never refused, not even while the base is
// measured.
TEST(AdaptiveStep, NeverStopsClientsWhoAskForLessThanThereIs) {
  const AdaptiveTerms terms{4, 1'000, 20, 1.3};
  std::mt19937 random(3);
  Trial run;
  run.state.limit = 20;
  run.over({50, 10e6, 15}, terms, 3);  // the limit grows above what is used
  for (int second = 0; second < 300; ++second) {
    const double noise = 1 + static_cast<double>(random() % 100) / 400;  // answers differ by a quarter
    run.over({50, 10e6 * noise, 9 + static_cast<double>(random() % 5)}, terms, 1);
    EXPECT_GT(run.state.limit, 14.0) << second;
  }
}

// A backend that serves in order of arrival, `workers` at one time, and is asked for three times as much as it can do.
// Runs in virtual time.
struct Overload {
  size_t workers;
  std::function<double(std::mt19937_64&)> answer_ms;
  std::mt19937_64 random{1};
  policy::AdaptiveLimit limit{20};
  struct Result {
    double goodput = 0;  // as a share of what it can do
    double p99_ms = 0, unloaded_p99_ms = 0;
  };
  // Of all but the first ten seconds.
  Result run(double mean_ms, double seconds) {
    constexpr AdaptiveTerms kTerms{2, 1'000, 20, 1.3};
    using Event = std::tuple<double, bool, double>;  // when (ms), whether an answer, since when
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events;
    std::queue<double> waiting;
    std::exponential_distribution<double> gap(3 * static_cast<double>(workers) / mean_ms);
    size_t running = 0, in_flight = 0;
    std::vector<double> served, unloaded;
    const auto start = [&](double now, double since) {
      ++running;
      events.emplace(now + answer_ms(random), true, since);
    };
    events.emplace(gap(random), false, 0);
    while (std::get<0>(events.top()) < seconds * 1'000) {
      const auto [now, is_answer, since] = events.top();
      events.pop();
      const auto now_ns = static_cast<uint64_t>((now + 1'000) * 1e6);
      if (!is_answer) {
        events.emplace(now + gap(random), false, 0);
        if (in_flight >= limit.limit(kTerms)) continue;
        limit.note_running(++in_flight);
        if (running < workers) {
          start(now, now);
        } else {
          waiting.push(now);
        }
        continue;
      }
      --running, --in_flight;
      if (now > 10'000) served.push_back(now - since);
      limit.note_answer(kTerms, static_cast<uint64_t>((now - since) * 1e6), now_ns);
      if (waiting.empty()) continue;
      start(now, waiting.front());
      waiting.pop();
    }
    for (int i = 0; i < 100'000; ++i) unloaded.push_back(answer_ms(random));
    const double could = (seconds - 10) * 1'000 / mean_ms * static_cast<double>(workers);
    return {static_cast<double>(served.size()) / could, p99(served), p99(unloaded)};
  }
  static double p99(std::vector<double>& times) {
    const auto at = times.begin() + static_cast<ptrdiff_t>(times.size() * 99 / 100);
    std::nth_element(times.begin(), at, times.end());
    return *at;
  }
};

// Answers of real backends differ. Once, the limit fell to its least then, and a tenth of the work was done.
struct Answers {
  const char* kind;
  std::function<double(std::mt19937_64&)> ms;  // 50 on average
};
const Answers kExponential = {
    "exponential", [](std::mt19937_64& random) { return std::exponential_distribution<>(1 / 50.0)(random); }};
const Answers kSomeAtOnce = {"a fifth of them from a cache",
                             [](std::mt19937_64& random) { return random() % 5 == 0 ? 1.0 : 62.25; }};

void keeps_its_goodput(const Answers& answers, size_t workers, double seconds) {
  const Overload::Result result = Overload{workers, answers.ms}.run(50, seconds);
  EXPECT_GE(result.goodput, 0.87) << answers.kind << ", " << workers;
  EXPECT_LE(result.p99_ms, 2 * result.unloaded_p99_ms) << answers.kind << ", " << workers;
}

TEST(AdaptiveLimit, KeepsTheGoodputOfABackendWhoseAnswersDiffer) {
  keeps_its_goodput(kExponential, 16, 40);
  keeps_its_goodput(kSomeAtOnce, 4, 40);
}

TEST(LongAdaptiveLimit, KeepsTheGoodputOfBackendsOfManyKinds) {
  const Answers kinds[] = {
      {"all alike", [](std::mt19937_64&) { return 50.0; }},
      {"half as long to three halves",
       [](std::mt19937_64& random) { return std::uniform_real_distribution<>(25, 75)(random); }},
      kExponential,
      kSomeAtOnce,
      {"a twentieth of them reports", [](std::mt19937_64& random) { return random() % 20 == 0 ? 512.8 : 25.64; }},
  };
  for (const Answers& answers : kinds) {
    for (const size_t workers : {size_t{4}, size_t{16}, size_t{50}}) keeps_its_goodput(answers, workers, 70);
  }
}

TEST(AdaptiveStep, StaysWithinItsBounds) {
  Trial run;
  run.state.limit = 5;
  run.over({1, 10e6}, {5, 30, 5, 1.3}, 10);
  EXPECT_GE(run.state.limit, 5);
  run.over({1'000, 10e6}, {5, 30, 5, 1.3}, 60);
  EXPECT_LE(run.state.limit, 30);
}

}  // namespace tidegate::l7::test::adaptive_limit_test
