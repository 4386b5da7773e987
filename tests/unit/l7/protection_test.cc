// SPDX-License-Identifier: Apache-2.0
// What protects backends, on real connections: breakers, 5xx answers that count, subsets, and their metrics and status.
#include <gtest/gtest.h>

#include <atomic>
#include <nlohmann/json.hpp>
#include <thread>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "core/clock.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::protection_test {

// An origin that answers with a status and a delay that the test sets.
struct MoodyOrigin {
  std::atomic<int> status{200};
  std::atomic<int> delay_ms{0};
  Origin origin{[this](const std::string&, Wire& wire) {
    // The test is about the time of an answer.
    if (delay_ms > 0) std::this_thread::sleep_for(std::chrono::milliseconds(delay_ms));
    return wire.send("HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Length: 2\r\n\r\nok");
  }};
};

class ProtectionTest : public ::testing::Test {
 protected:
  Pool& pool(const std::vector<Endpoint>& backends) {
    const uint32_t index = edge_.add_pool("p", backends);
    edge_.add_route("/*", index);
    edge_.model.pools[index].retry_attempts = 0;
    edge_.model.pools[index].eject_after = 0;
    return edge_.model.pools[index];
  }
  int status(const std::string& path = "/") { return ask(edge_.endpoint(), get(path)).status; }
  nlohmann::json explain(const std::string& path = "/") {
    HttpRequest request;
    request.query = "client=192.0.2.1&url=http://a.test" + path;
    return *edge_.proxy().explain(request);
  }
  Edge edge_;
};

TEST_F(ProtectionTest, ABreakerOpensOnAnswersOf5xxWhereToldAndClosesAfterItsTrials) {
  MoodyOrigin moody;
  Pool& p = pool({moody.origin.endpoint()});
  p.count_5xx = true;
  p.breaker = {.enabled = true, .minimum_requests = 4, .error_rate = 0.5, .open_ms = 1'000, .trials = 2};
  edge_.start();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(status(), 200);
  moody.status = 503;
  for (int i = 0; i < 2; ++i) EXPECT_EQ(status(), 503);
  const size_t before = moody.origin.requests();
  EXPECT_EQ(before, 4u);
  EXPECT_EQ(status(), 503);
  EXPECT_EQ(moody.origin.requests(), before) << "the breaker's answer, not the origin's";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"breaker_open\"}"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_breaker_opened_total{pool=\"p\"}"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_breaker_state{pool=\"p\",backend=\"b1\"}"), 2u);
  EXPECT_EQ(explain()["eligible"][0]["breaker"], "open");
  moody.status = 200;
  const auto half_open = [&] { return explain()["eligible"][0]["breaker"] == "half_open"; };
  ASSERT_TRUE(edge_.run_until(half_open));
  EXPECT_EQ(status(), 200);
  EXPECT_TRUE(half_open()) << "one trial is not two";
  EXPECT_EQ(status(), 200);
  EXPECT_EQ(explain()["eligible"][0]["breaker"], "closed");
  EXPECT_EQ(edge_.metric("tidegate_l7_breaker_closed_total{pool=\"p\"}"), 1u);
}

TEST_F(ProtectionTest, Answers5xxCountForNothingUnlessTold) {
  MoodyOrigin moody;
  moody.status = 500;
  Pool& p = pool({moody.origin.endpoint()});
  p.breaker = {.enabled = true, .minimum_requests = 1, .consecutive_failures = 1};
  p.eject_after = 1;
  edge_.start();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(status(), 500);
  EXPECT_EQ(moody.origin.requests(), 5u);
  EXPECT_EQ(edge_.metric("tidegate_l7_ejections_total"), 0u);
}

TEST_F(ProtectionTest, Answers5xxEjectWhereTold) {
  MoodyOrigin good, bad;
  bad.status = 500;
  Pool& p = pool({good.origin.endpoint(), bad.origin.endpoint()});
  p.count_5xx = true;
  p.eject_after = 2;
  edge_.start();
  for (int i = 0; i < 20; ++i) status();
  EXPECT_EQ(bad.origin.requests(), 2u);
  EXPECT_EQ(edge_.metric("tidegate_l7_ejections_total"), 1u);
}

TEST_F(ProtectionTest, ABreakerOpensOnSlowAnswers) {
  MoodyOrigin moody;
  moody.delay_ms = 30;
  Pool& p = pool({moody.origin.endpoint()});
  p.breaker = {.enabled = true, .minimum_requests = 2, .slow_ms = 5, .slow_rate = 1.0};
  edge_.start();
  EXPECT_EQ(status(), 200);
  EXPECT_EQ(status(), 200);
  EXPECT_EQ(status(), 503);
}

TEST_F(ProtectionTest, WithABreakerPerBackendRequestsGoToTheOthers) {
  MoodyOrigin good, bad;
  bad.status = 500;
  Pool& p = pool({good.origin.endpoint(), bad.origin.endpoint()});
  p.count_5xx = true;
  p.breaker = {.enabled = true, .consecutive_failures = 1};
  edge_.start();
  int failed = 0;
  for (int i = 0; i < 20; ++i) failed += status() == 500 ? 1 : 0;
  EXPECT_EQ(failed, 1);
}

TEST_F(ProtectionTest, ABreakerOfThePoolStopsAll) {
  MoodyOrigin good, bad;
  bad.status = 500;
  Pool& p = pool({good.origin.endpoint(), bad.origin.endpoint()});
  p.count_5xx = true;
  p.breaker = {.enabled = true, .scope = BreakerScope::pool, .consecutive_failures = 1};
  edge_.start();
  while (status() != 500) continue;
  EXPECT_EQ(status(), 503);
  EXPECT_EQ(explain()["breaker"], "open");
  EXPECT_EQ(edge_.metric("tidegate_l7_pool_breaker_state{pool=\"p\"}"), 2u);
}

// If a client leaves during a trial, this says nothing about the backend: the trial is not lost.
TEST_F(ProtectionTest, ATrialWhoseClientLeavesIsMadeByAnother) {
  std::atomic<int> asked{0};
  Origin origin([&](const std::string&, Wire& wire) {
    switch (++asked) {
      case 1:
        return false;
      case 2:
        return !wire.at_end();
      default:
        return wire.send(Origin::ok("ok"));
    }
  });
  Pool& p = pool({origin.endpoint()});
  p.breaker = {.enabled = true, .consecutive_failures = 1, .open_ms = 50, .trials = 1};
  edge_.start();
  EXPECT_EQ(status(), 502);
  ASSERT_TRUE(edge_.run_until([&] { return explain()["eligible"][0]["breaker"] == "half_open"; }));
  {
    Wire leaves = Wire::connect(edge_.endpoint());
    leaves.send(get("/"));
    ASSERT_TRUE(edge_.run_until([&] { return asked == 2; }));
    EXPECT_EQ(status(), 503) << "the only trial is under way";
  }
  ASSERT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}") == 1; }));
  EXPECT_EQ(status(), 200);
  EXPECT_EQ(explain()["eligible"][0]["breaker"], "closed");
}

TEST_F(ProtectionTest, ARouteWithLabelsUsesItsPartOfThePool) {
  Origin plain(Origin::says("plain")), canary(Origin::says("canary"));
  pool({plain.endpoint(), canary.endpoint()}).backends[1].labels = {"canary"};
  Route& strict = edge_.add_route("/strict", 0);
  strict.labels = {"canary"};
  Route& lax = edge_.add_route("/lax", 0);
  lax.labels = {"canary"};
  lax.labels_required = false;
  edge_.start();
  const auto body = [&](const std::string& path) { return ask(edge_.endpoint(), get(path)).body; };
  for (int i = 0; i < 4; ++i) EXPECT_EQ(body("/strict"), "canary");
  EXPECT_EQ(explain("/strict")["backend"], "b2");
  auto live_state = std::make_shared<LiveState>();
  live_state->overrides[backend_key("p", "b2")] = {};
  edge_.publish(live_state);
  EXPECT_TRUE(edge_.run_until([&] { return status("/strict") == 503; })) << "once it is in force";
  EXPECT_EQ(body("/lax"), "plain");
}

TEST_F(ProtectionTest, BackupsServeWhenTheOthersAreEjected) {
  Origin dead(Origin::says("never")), backup(Origin::says("backup"));
  Pool& p = pool({dead.endpoint(), backup.endpoint()});
  dead.die();
  p.backends[1].backup = true;
  p.eject_after = 1;
  p.retry_attempts = 1;
  edge_.start();
  for (int i = 0; i < 5; ++i) EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "backup");
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"connect_failed\"}"), 0u);
  const nlohmann::json told = explain();
  EXPECT_EQ(told["levels"]["backup"], 1.0);
  EXPECT_EQ(told["eligible"][1]["backup"], true);
}

}  // namespace tidegate::l7::test::protection_test
