// SPDX-License-Identifier: Apache-2.0
// The concurrency and deadline policies: what clients of the proxy see.
#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>
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
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::concurrency_test {

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
