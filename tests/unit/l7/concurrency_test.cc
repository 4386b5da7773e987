// SPDX-License-Identifier: Apache-2.0
// The concurrency and deadline policies: the adaptive limit with a simulated backend, and what clients of the proxy
// see.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <queue>
#include <random>
#include <tuple>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/policy/concurrency.h"
#include "conf/policy/deadline.h"
#include "core/clock.h"
#include "core/http_server.h"
#include "l7/policy/adaptive_limit.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::concurrency_test {

using policy::AdaptiveState;
using policy::AdaptiveStep;
using policy::AdaptiveTerms;
using policy::AdaptiveWindow;

// --- the adaptive limit

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

// --- concurrency through the proxy

class ConcurrencyTest : public ::testing::Test {
 protected:
  void start(const std::function<void(ConcurrencyPolicy&)>& set) {
    edge_.model.policies = {policy(set)};
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()})).policies = {0};
    edge_.start();
  }
  static Policy policy(const std::function<void(ConcurrencyPolicy&)>& set) {
    auto part = std::make_shared<ConcurrencyPolicy>();
    set(*part);
    return {"few", false, {{"concurrency", part}}};
  }
  // A request that stays in progress until release().
  Wire hold(const std::string& fields = "") {
    const size_t before = origin_.requests();
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get("/held", "a.test", fields));
    EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() > before; }));
    return wire;
  }
  void release() {
    released_ = true;
    released_.notify_all();
  }
  int status(const std::string& fields = "") { return ask(edge_.endpoint(), get("/x", "a.test", fields)).status; }
  uint64_t in_flight() { return edge_.metric("tidegate_l7_concurrency_in_flight{policy=\"few\"}"); }

  std::atomic<bool> released_{false};
  Edge edge_;
  Origin origin_{[this](const std::string& head, Wire& wire) {
    if (head.find("/held") != std::string::npos) released_.wait(false);
    return wire.send(Origin::ok("x"));
  }};
};

TEST_F(ConcurrencyTest, TheExcessIsRefusedAtOnceAndAPlaceComesBack) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 2;
    part.retry_after_s = 7;
  });
  Wire first = hold(), second = hold();
  const Answer refused = ask(edge_.endpoint(), get("/x"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.field("retry-after"), "7");
  EXPECT_NE(refused.body.find("under way"), std::string::npos);
  EXPECT_EQ(in_flight(), 2u);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"concurrency_limited\"}"), 1u);
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_EQ(read_answer(second).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; }));
  EXPECT_EQ(status(), 200);
  EXPECT_EQ(origin_.requests(), 3u);
}

TEST_F(ConcurrencyTest, OneAfterAnotherIsNeverRefused) {
  start([](ConcurrencyPolicy& part) { part.requests = 1; });
  Wire wire = Wire::connect(edge_.endpoint());
  for (int i = 0; i < 200; ++i) {
    wire.send(get("/x"));
    ASSERT_EQ(read_answer(wire).status, 200) << i;
  }
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; }));
}

TEST_F(ConcurrencyTest, EachKeyHasPlacesOfItsOwn) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 1;
    part.by = {"header:X-Tenant"};
  });
  Wire first = hold("X-Tenant: a\r\n");
  EXPECT_EQ(status("X-Tenant: a\r\n"), 503);
  EXPECT_EQ(status("X-Tenant: b\r\n"), 200);
  Wire second = hold("X-Tenant: b\r\n");
  EXPECT_EQ(in_flight(), 2u);
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_EQ(read_answer(second).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return status("X-Tenant: a\r\n") == 200; }));
}

TEST_F(ConcurrencyTest, RequestsOfLowPriorityAreRefusedFirst) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 4;
    part.low_priority = {"reports"};
  });
  Route& reports = edge_.add_route("/low", 0);
  reports.name = "reports";
  reports.policies = {0};
  ASSERT_TRUE(edge_.publish());
  const auto low = [&] { return ask(edge_.endpoint(), get("/low")).status; };
  EXPECT_TRUE(edge_.run_until([&] { return low() == 200; }));
  Wire first = hold();
  EXPECT_EQ(low(), 200) << "one of four is taken";
  Wire second = hold();
  EXPECT_EQ(low(), 503) << "half are taken";
  EXPECT_EQ(status(), 200) << "the others have all";
  HttpRequest request;
  request.query = "client=127.0.0.1&url=http://a.test/low";
  const nlohmann::json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["low_priority"], 2);
  EXPECT_EQ(entry["low_share"], 0.5);
  EXPECT_EQ(entry["verdict"], "refused");
  EXPECT_EQ(entry["because_of"], "low_priority");
  release();
  for (Wire* wire : {&first, &second}) EXPECT_EQ(read_answer(*wire).status, 200);
}

// Three wait for one place and get it in order of arrival. One more is refused at once.
TEST_F(ConcurrencyTest, WhoWaitsGetsThePlaceInTurn) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 1;
    part.wait_ms = 60'000;
    part.queue = 3;
  });
  const auto waiting = [&] { return edge_.metric("tidegate_l7_concurrency_waiting{policy=\"few\"}"); };
  Wire first = hold();
  std::vector<Wire> others;
  for (uint64_t i = 1; i <= 3; ++i) {
    others.push_back(Wire::connect(edge_.endpoint()));
    others.back().send(get("/" + std::to_string(i)));
    ASSERT_TRUE(edge_.run_until([&] { return waiting() == i; }));
  }
  EXPECT_EQ(status(), 503) << "the queue is full";
  const auto told = [&](const std::string& path) {
    HttpRequest request;
    request.query = "client=127.0.0.1&url=http://a.test" + path;
    return (*edge_.proxy().explain(request))["policies"][0];
  };
  EXPECT_EQ(told("/x")["because_of"], "queue_full");
  EXPECT_EQ(told("/x")["queue"], 3);
  EXPECT_EQ(told("/x")["wait_ms"], 60'000);
  others[1].reset();  // its client does not wait any more
  ASSERT_TRUE(edge_.run_until([&] { return waiting() == 2; }));
  EXPECT_EQ(told("/x")["verdict"], "waited");
  EXPECT_EQ(origin_.requests(), 1u);
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_EQ(read_answer(others[0]).status, 200);
  EXPECT_EQ(read_answer(others[2]).status, 200);
  EXPECT_EQ(origin_.last_head().substr(0, 7), "GET /3 ") << "the last one in the queue";
  EXPECT_EQ(origin_.requests(), 3u);
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0 && waiting() == 0; }));
  EXPECT_EQ(edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"few\",kind=\"concurrency\",verdict=\"waited\"}"),
            2u);
}

// Requests of low priority never wait. While others wait they get no place either, and explain says so.
TEST_F(ConcurrencyTest, WhoIsOfLowPriorityDoesNotOvertakeWhoWaits) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 1;
    part.wait_ms = 60'000;
    part.low_priority = {"reports"};
    part.low_share = 1;
  });
  Route& reports = edge_.add_route("/low", 0);
  reports.name = "reports";
  reports.policies = {0};
  ASSERT_TRUE(edge_.publish());
  const auto low = [&] { return ask(edge_.endpoint(), get("/low")).status; };
  EXPECT_TRUE(edge_.run_until([&] { return low() == 200; }));
  Wire first = hold();
  Wire second = Wire::connect(edge_.endpoint());
  second.send(get("/x"));
  ASSERT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_concurrency_waiting{policy=\"few\"}") == 1; }));
  // A greater number holds at once, but nobody serves the queue until a place is freed.
  edge_.model.policies = {policy([](ConcurrencyPolicy& part) {
    part.requests = 4;
    part.wait_ms = 60'000;
    part.low_priority = {"reports"};
    part.low_share = 1;
  })};
  ASSERT_TRUE(edge_.publish());
  HttpRequest request;
  request.query = "client=127.0.0.1&url=http://a.test/low";
  const nlohmann::json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["requests"], 4);
  EXPECT_EQ(entry["verdict"], low() == 200 ? "passed" : "refused");
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_EQ(read_answer(second).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; }));
}

TEST_F(ConcurrencyTest, AWaitEndsAndTheClientIsToldToComeAgain) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 1;
    part.wait_ms = 20;
    part.by = {"header:X-Tenant"};
  });
  Wire first = hold("X-Tenant: a\r\n");
  const Answer refused = ask(edge_.endpoint(), get("/x", "a.test", "X-Tenant: a\r\n"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.field("retry-after"), "1");
  EXPECT_EQ(status("X-Tenant: b\r\n"), 200) << "another key waits for nobody";
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; }));
}

// Many clients over several workers: each freed place is used, so all are served in the end.
TEST_F(ConcurrencyTest, NobodyWaitsForAPlaceThatIsFree) {
  edge_.model.nodes[0].l7.workers = 3;
  start([](ConcurrencyPolicy& part) {
    part.requests = 2;
    part.wait_ms = 60'000;
  });
  std::vector<std::thread> clients;
  std::atomic<int> served{0};
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&] {
      Wire wire = Wire::connect(edge_.endpoint());
      for (int i = 0; i < 50; ++i) {
        wire.send(get("/x"));
        if (read_answer(wire).status == 200) ++served;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served, 8 * 50);
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; }));
}

TEST_F(ConcurrencyTest, AClientThatLeavesGivesItsPlaceBack) {
  start([](ConcurrencyPolicy& part) { part.requests = 1; });
  {
    Wire leaver = hold();
    EXPECT_EQ(status(), 503);
    leaver.reset();
  }
  EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; }));
  EXPECT_EQ(status(), 200);
  release();
}

TEST_F(ConcurrencyTest, APlaceComesBackHoweverARequestEnds) {
  start([](ConcurrencyPolicy& part) { part.requests = 1; });
  edge_.add_fixed("/fixed", 404).policies = {0};
  ASSERT_TRUE(edge_.publish());
  EXPECT_TRUE(edge_.run_until([&] { return ask(edge_.endpoint(), get("/fixed")).status == 404; }));
  for (const auto& [request, status] : std::initializer_list<std::pair<const char*, int>>{
           {"GET /fixed HTTP/1.1\r\nHost: a\r\n\r\n", 404},
           {"GET /x HTTP/1.1\r\nHost: a\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 200},
           {"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nzz", 200},  // answered before its body is complete
           {"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
           {"GET /x HTTP/1.0\r\n\r\n", 200}}) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(request);
    EXPECT_EQ(read_final_answer(wire).status, status) << request;
    EXPECT_TRUE(edge_.run_until([&] { return in_flight() == 0; })) << request;
  }
}

TEST_F(ConcurrencyTest, ExemptClientsAreNotCounted) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 1;
    part.exempt = {*Cidr::parse("127.0.0.0/8")};
  });
  Wire first = hold();
  EXPECT_EQ(status(), 200);
  EXPECT_EQ(in_flight(), 0u);
  release();
  EXPECT_EQ(read_answer(first).status, 200);
}

TEST_F(ConcurrencyTest, ANewNumberHoldsForWhatIsUnderWay) {
  start([](ConcurrencyPolicy& part) { part.requests = 1; });
  Wire first = hold();
  EXPECT_EQ(status(), 503);
  edge_.model.policies = {policy([](ConcurrencyPolicy& part) { part.requests = 2; })};
  ASSERT_TRUE(edge_.publish());
  EXPECT_TRUE(edge_.run_until([&] { return status() == 200; }));
  Wire second = hold();
  EXPECT_EQ(status(), 503);
  HttpRequest request;
  request.query = "client=127.0.0.1&url=http://a.test/x";
  const nlohmann::json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["requests"], 2);
  EXPECT_EQ(entry["in_flight"], 2);
  EXPECT_EQ(entry["verdict"], "refused");
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_EQ(read_answer(second).status, 200);
}

TEST_F(ConcurrencyTest, AnAdaptiveLimitHoldsFromTheStartAndMeasures) {
  start([](ConcurrencyPolicy& part) { part.adaptive = {true, 2, 100, 3, 1.3}; });
  Wire first = hold(), second = hold(), third = hold();
  EXPECT_EQ(status(), 503);
  EXPECT_EQ(edge_.metric("tidegate_l7_concurrency_limit{policy=\"few\"}"), 3u);
  release();
  for (Wire* wire : {&first, &second, &third}) EXPECT_EQ(read_answer(*wire).status, 200);
  HttpRequest request;
  request.query = "client=127.0.0.1&url=http://a.test/x";
  EXPECT_TRUE(edge_.run_until([&] {
    status();
    return (*edge_.proxy().explain(request))["policies"][0]["base_ms"] > 0.0;
  }));
}

// --- deadline

class DeadlineTest : public ::testing::Test {
 protected:
  Pool& start(const std::function<void(DeadlinePolicy&)>& set = {}, bool cached = false) {
    auto part = std::make_shared<DeadlinePolicy>();
    part->header = "X-Time-Left";
    if (set) set(*part);
    edge_.model.policies.push_back({"due", false, {{"deadline", part}}});
    if (cached) {
      edge_.state_dir = state_.path;
      edge_.model.nodes[0].cache.enabled = true;
    }
    const uint32_t pool = edge_.add_pool("p", {origin_.endpoint()});
    Route& route = edge_.add_route("/*", pool);
    route.policies = {0};
    route.cache.enabled = cached;
    edge_.start();
    return edge_.model.pools[pool];
  }
  Answer get_with(const std::string& fields, const std::string& path = "/x") {
    return ask(edge_.endpoint(), get(path, "a.test", fields));
  }
  // The last value of the field at the backend. Nothing if there was none.
  std::optional<uint64_t> told() const {
    const std::string head = origin_.last_head();
    const std::string name = "\r\nX-Time-Left: ";
    const size_t at = head.find(name);
    if (at == std::string::npos) return std::nullopt;
    EXPECT_EQ(head.find(name, at + 1), std::string::npos) << head;
    return std::stoul(head.substr(at + name.size()));
  }

  const StateDir state_;
  Edge edge_;
  Origin origin_{[](const std::string& head, Wire& wire) {
    if (head.find("/silent") != std::string::npos) return !wire.at_end();
    if (head.find("/half") != std::string::npos) {
      return wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf") && !wire.at_end();
    }
    return wire.send(Origin::ok("x", "Cache-Control: max-age=60\r\n"));
  }};
};

TEST_F(DeadlineTest, ASilentBackendIsLeftWhenTheTimeIsOverAndIsNotCharged) {
  start();
  const uint64_t begun_ns = monotonic_ns();
  const Answer answer = get_with("X-Time-Left: 150\r\n", "/silent");
  EXPECT_GE(monotonic_ns() - begun_ns, 150 * kNsPerMs);
  EXPECT_EQ(answer.status, 504);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"deadline_exceeded\"}"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
  const Answer half = get_with("X-Time-Left: 150\r\n", "/half");
  EXPECT_EQ(half.status, 200);
  EXPECT_FALSE(half.complete) << "the deadline is that of the whole exchange";
}

TEST_F(DeadlineTest, TheBackendIsToldWhatIsLeft) {
  start();
  EXPECT_EQ(get_with("x-time-left: 60000\r\n").status, 200);
  ASSERT_TRUE(told());
  EXPECT_LE(*told(), 60'000u);
  EXPECT_GT(*told(), 30'000u);
  EXPECT_EQ(get_with("").status, 200);
  EXPECT_FALSE(told()) << "no deadline, no field";
  EXPECT_EQ(get_with("X-Time-Left: 60000\r\nX_Time_Left: 7777777\r\n").status, 200);
  EXPECT_EQ(origin_.last_head().find("7777777"), std::string::npos) << "a backend could read it as the field";
}

TEST_F(DeadlineTest, SecondsAreRoundedUpAndTheMostAndTheDefaultHold) {
  start([](DeadlinePolicy& part) {
    part.unit = DeadlineUnit::s;
    part.default_ms = 20'000;
    part.most_ms = 40'000;
  });
  for (const auto& [said, told_s] : std::initializer_list<std::pair<std::string, uint64_t>>{
           {"30", 30}, {"3600", 40}, {"99999999999999999999999", 40}, {"1", 1}}) {
    EXPECT_EQ(get_with("X-Time-Left: " + said + "\r\n").status, 200);
    EXPECT_EQ(told(), told_s) << said;
  }
  EXPECT_EQ(get_with("").status, 200);
  EXPECT_EQ(told(), 20u);
}

TEST_F(DeadlineTest, NoTimeAtAllIsOverBeforeABackendIsAsked) {
  start();
  EXPECT_EQ(get_with("X-Time-Left: 0\r\n").status, 504);
  EXPECT_EQ(origin_.requests(), 0u);
  EXPECT_EQ(edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"due\",kind=\"deadline\",verdict=\"refused\"}"),
            1u);
}

TEST_F(DeadlineTest, ExplainTellsWhatTheFieldSays) {
  start();
  const auto told = [&](const std::string& value) {
    HttpRequest request;
    request.query = "client=127.0.0.1&url=http://a.test/x&headers=X-Time-Left:%20" + value;
    return (*edge_.proxy().explain(request))["policies"][0];
  };
  EXPECT_EQ(told("0")["verdict"], "refused");
  EXPECT_EQ(told("150")["verdict"], "passed");
  EXPECT_EQ(told("150")["time_ms"], 150);
  EXPECT_EQ(told("soon")["verdict"], "exempt");
  EXPECT_EQ(told("soon")["malformed"], true);
}

TEST_F(DeadlineTest, WhatIsNoNumberCountsAsNoneAndIsCounted) {
  start();
  for (const char* said : {"", "soon", "-1", "1.5", "100ms", "0x10", "1 2"}) {
    EXPECT_EQ(get_with(std::string("X-Time-Left: ") + said + "\r\n").status, 200) << said;
    EXPECT_FALSE(told()) << said;
  }
  EXPECT_EQ(get_with("X-Time-Left: 60000\r\nX-Time-Left: 1\r\n").status, 200) << "two are no number";
  EXPECT_FALSE(told());
  EXPECT_EQ(edge_.metric("tidegate_l7_deadline_malformed_total{policy=\"due\"}"), 8u);
}

TEST_F(DeadlineTest, AFetchThatOthersMayShareIsNotBoundByOneClientsTime) {
  start({}, true);
  EXPECT_EQ(get_with("X-Time-Left: 60000\r\n").status, 200);
  EXPECT_FALSE(told());
  EXPECT_EQ(get_with("X-Time-Left: 60000\r\n").status, 200);
  EXPECT_EQ(origin_.requests(), 1u) << "a hit";
}

}  // namespace tidegate::l7::test::concurrency_test
