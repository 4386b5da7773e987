// SPDX-License-Identifier: Apache-2.0
// The concurrency policy by identity: lanes of tenants, bulkheads of pools, and connections.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/policy/concurrency.h"
#include "core/http_server.h"
#include "l7/policy/request_key.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::lanes_test {

class LanesTest : public ::testing::Test {
 protected:
  void start(const std::function<void(ConcurrencyPolicy&)>& set, size_t workers = 1) {
    edge_.model.policies = {policy(set)};
    edge_.model.nodes[0].l7.workers = static_cast<uint32_t>(workers);
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()})).policies = {0};
    edge_.start();
  }
  static Policy policy(const std::function<void(ConcurrencyPolicy&)>& set) {
    auto part = std::make_shared<ConcurrencyPolicy>();
    set(*part);
    return {"few", false, {{"concurrency", part}}};
  }
  // Gold has two places, basic one, and all others one together.
  static void three_lanes(ConcurrencyPolicy& part) {
    part.requests = 1;
    part.tenant = "header:X-Tenant";
    part.lanes = {{"gold", {"acme", "globex"}, 2, 0}, {"basic", {}, 1, 0}};
  }
  // A request that stays in progress until release().
  Wire hold(const std::string& fields = "", const std::string& path = "/held") {
    const size_t before = origin_.requests();
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get(path, "a.test", fields));
    EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() > before; }));
    return wire;
  }
  Wire hold_of(const std::string& tenant) { return hold("X-Tenant: " + tenant + "\r\n"); }
  void release() {
    released_ = true;
    released_.notify_all();
  }
  int status(const std::string& fields = "", const std::string& path = "/x") {
    return ask(edge_.endpoint(), get(path, "a.test", fields)).status;
  }
  int status_of(const std::string& tenant) { return status("X-Tenant: " + tenant + "\r\n"); }
  uint64_t of_lane(const std::string& family, const std::string& lane) {
    return edge_.metric("tidegate_l7_concurrency_lane_" + family + "{policy=\"few\",lane=\"" + lane + "\"}");
  }
  uint64_t of_policy(const std::string& family) {
    return edge_.metric("tidegate_l7_concurrency_" + family + "{policy=\"few\"}");
  }
  nlohmann::json explained(const std::string& more = "") {
    HttpRequest request;
    request.query = "client=127.0.0.1&url=http://a.test/x" + more;
    return (*edge_.proxy().explain(request))["policies"][0];
  }

  std::atomic<bool> released_{false};
  Edge edge_;
  Origin origin_{[this](const std::string& head, Wire& wire) {
    if (head.find("/held") != std::string::npos) released_.wait(false);
    return wire.send(Origin::ok("x"));
  }};
};

TEST_F(LanesTest, ATenantHasPlacesThatNoOtherTakes) {
  start(three_lanes);
  Wire first = hold_of("acme"), second = hold_of("globex");
  EXPECT_EQ(status_of("acme"), 503) << "both of gold are taken, by its two tenants";
  EXPECT_EQ(status_of("basic"), 200);
  EXPECT_EQ(status(), 200) << "who names no tenant";
  EXPECT_EQ(of_lane("in_flight", "gold"), 2u);
  EXPECT_EQ(of_lane("limit", "gold"), 2u);
  EXPECT_EQ(of_lane("passed_total", "gold"), 2u);
  EXPECT_EQ(of_lane("refused_total", "gold"), 1u);
  EXPECT_EQ(of_lane("refused_total", "basic"), 0u);
  EXPECT_EQ(of_policy("in_flight"), 2u);
  nlohmann::json entry = explained("&headers=X-Tenant:%20acme");
  EXPECT_EQ(entry["lane"], "gold");
  EXPECT_EQ(entry["requests"], 2);
  EXPECT_EQ(entry["verdict"], "refused");
  EXPECT_EQ(entry["because_of"], "lane_full");
  EXPECT_EQ(explained()["lane"], "other");
  EXPECT_EQ(explained()["verdict"], "passed");
  release();
  for (Wire* wire : {&first, &second}) EXPECT_EQ(read_answer(*wire).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return of_lane("in_flight", "gold") == 0 && of_policy("in_flight") == 0; }));
  EXPECT_EQ(status_of("acme"), 200);
}

TEST_F(LanesTest, TenantsWithoutALaneShareWhatIsForTheOthers) {
  start(three_lanes);
  Wire first = hold_of("nobody-knows");
  EXPECT_EQ(status_of("another"), 503);
  EXPECT_EQ(status(), 503);
  EXPECT_EQ(status_of("gold"), 503) << "the lane's name is no tenant where `values` says who is";
  EXPECT_EQ(status_of("acme"), 200);
  EXPECT_EQ(of_lane("in_flight", "other"), 1u);
  EXPECT_EQ(of_lane("refused_total", "other"), 3u);
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return of_lane("in_flight", "other") == 0; }));
}

TEST_F(LanesTest, ALaneHasAQueueOfItsOwn) {
  start([](ConcurrencyPolicy& part) {
    three_lanes(part);
    part.wait_ms = 60'000;
  });
  Wire first = hold_of("basic");
  Wire second = Wire::connect(edge_.endpoint());
  second.send(get("/x", "a.test", "X-Tenant: basic\r\n"));
  ASSERT_TRUE(edge_.run_until([&] { return of_policy("waiting") == 1; }));
  EXPECT_EQ(status_of("acme"), 200) << "another lane waits for nobody";
  {
    Wire leaver = Wire::connect(edge_.endpoint());
    leaver.send(get("/x", "a.test", "X-Tenant: basic\r\n"));
    ASSERT_TRUE(edge_.run_until([&] { return of_policy("waiting") == 2; }));
    leaver.reset();
    ASSERT_TRUE(edge_.run_until([&] { return of_policy("waiting") == 1; }));
  }
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  EXPECT_EQ(read_answer(second).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return of_lane("in_flight", "basic") == 0 && of_policy("in_flight") == 0; }));
}

// With a measured limit a lane may use a share of it, and the others have the rest.
TEST_F(LanesTest, ALaneTakesNoMoreThanItsShareOfAMeasuredLimit) {
  start([](ConcurrencyPolicy& part) {
    part.adaptive = {true, 4, 4, 4, 1.3};
    part.tenant = "header:X-Tenant";
    part.lanes = {{"batch", {}, 0, 0.5}};
  });
  Wire first = hold_of("batch"), second = hold_of("batch");
  EXPECT_EQ(status_of("batch"), 503);
  EXPECT_EQ(of_lane("limit", "batch"), 2u);
  EXPECT_EQ(explained("&headers=X-Tenant:%20batch")["because_of"], "lane_full");
  EXPECT_EQ(explained()["verdict"], "passed") << "the others have the rest";
  Wire third = hold(), fourth = hold();
  EXPECT_EQ(status(), 503) << "the limit itself";
  EXPECT_EQ(of_policy("in_flight"), 4u);
  release();
  for (Wire* wire : {&first, &second, &third, &fourth}) EXPECT_EQ(read_answer(*wire).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return of_lane("in_flight", "batch") == 0 && of_policy("in_flight") == 0; }));
  EXPECT_EQ(status_of("batch"), 200);
}

// A full lane does not wait for a share of a measured limit, which is told too.
TEST_F(LanesTest, ALaneOfAMeasuredLimitIsRefusedAtOnceThoughOthersWait) {
  start([](ConcurrencyPolicy& part) {
    part.adaptive = {true, 4, 4, 4, 1.3};
    part.wait_ms = 60'000;
    part.tenant = "header:X-Tenant";
    part.lanes = {{"batch", {}, 0, 0.25}};
  });
  Wire first = hold_of("batch");
  EXPECT_EQ(explained("&headers=X-Tenant:%20batch")["verdict"], "refused");
  EXPECT_EQ(status_of("batch"), 503);
  std::vector<Wire> others;
  for (int i = 0; i < 3; ++i) others.push_back(hold());
  EXPECT_EQ(explained()["verdict"], "waited");
  others.push_back(Wire::connect(edge_.endpoint()));
  others.back().send(get("/x"));
  ASSERT_TRUE(edge_.run_until([&] { return of_policy("waiting") == 1; }));
  release();
  EXPECT_EQ(read_answer(first).status, 200);
  for (Wire& wire : others) EXPECT_EQ(read_answer(wire).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return of_policy("in_flight") == 0; }));
}

// A slow pool uses only its own places.
TEST_F(LanesTest, APoolThatIsSlowDoesNotTakeThePlacesOfAnother) {
  start([](ConcurrencyPolicy& part) {
    part.requests = 1;
    part.by = {"pool"};
  });
  edge_.add_route("/fast", edge_.add_pool("fast", {origin_.endpoint()})).policies = {0};
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] { return status("", "/fast") == 200; }));
  Wire slow = hold();
  EXPECT_EQ(status(), 503);
  EXPECT_EQ(status("", "/fast"), 200);
  release();
  EXPECT_EQ(read_answer(slow).status, 200);
}

TEST_F(LanesTest, AClientHasSoManyConnectionsWithRequestsUnderWay) {
  start([](ConcurrencyPolicy& part) {
    part.connections = 2;
    part.by = {"header:X-Tenant"};
  });
  Wire first = hold_of("a"), second = hold_of("a");
  EXPECT_EQ(of_policy("connections"), 2u);
  EXPECT_EQ(status_of("a"), 503) << "a third connection";
  EXPECT_EQ(status_of("b"), 200) << "another key";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"concurrency_limited\"}"), 1u);
  const nlohmann::json full = explained("&headers=X-Tenant:%20a");
  EXPECT_EQ(full["connections_in_use"], 2);
  EXPECT_EQ(full["verdict"], "refused");
  EXPECT_EQ(full["because_of"], "connections");
  EXPECT_EQ(explained("&headers=X-Tenant:%20b")["verdict"], "passed");
  first.reset();
  EXPECT_TRUE(edge_.run_until([&] { return of_policy("connections") == 1; }));
  EXPECT_EQ(status_of("a"), 200);
  release();
  EXPECT_EQ(read_answer(second).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return of_policy("connections") == 0 && of_policy("in_flight") == 0; }));
}

// The honest twin: a browser has one connection with many requests, or a few that are mostly idle.
TEST_F(LanesTest, AllRequestsOfOneConnectionCountOnceAndIdleOnesDoNot) {
  start([](ConcurrencyPolicy& part) { part.connections = 1; });
  Wire idle = Wire::connect(edge_.endpoint());
  idle.send(get("/x"));
  EXPECT_EQ(read_answer(idle).status, 200);
  ASSERT_TRUE(edge_.run_until([&] { return of_policy("connections") == 0; }));
  Http2Client client(edge_.endpoint());
  std::vector<int32_t> streams;
  for (int i = 0; i < 20; ++i) streams.push_back(client.submit(Http2Client::request("/held")));
  client.send_all();
  ASSERT_TRUE(edge_.run_until([&] { return of_policy("in_flight") == 20; }));
  EXPECT_EQ(of_policy("connections"), 1u);
  idle.send(get("/x"));
  EXPECT_EQ(read_answer(idle).status, 503) << "a second connection";
  release();
  for (const int32_t id : streams) {
    ASSERT_TRUE(client.finish(id));
    EXPECT_EQ(client.result(id).fields[":status"], "200");
  }
  EXPECT_TRUE(edge_.run_until([&] { return of_policy("connections") == 0 && of_policy("in_flight") == 0; }));
  idle.send(get("/x"));
  EXPECT_EQ(read_answer(idle).status, 200);
}

// However a request ends, its connection is not counted any more.
TEST_F(LanesTest, CountsReturnToNothingOverManyConnectionsAndWorkers) {
  start(
      [](ConcurrencyPolicy& part) {
        part.connections = 3;
        part.requests = 2;
        part.by = {"client"};
      },
      3);
  std::vector<std::thread> clients;
  std::atomic<int> served{0}, refused{0};
  for (int c = 0; c < 8; ++c) {
    clients.emplace_back([&, c] {
      for (int i = 0; i < 40; ++i) {
        Wire wire = Wire::connect(edge_.endpoint());
        wire.send(get("/x"));
        if ((i + c) % 5 == 0) {
          wire.reset();
          continue;
        }
        const int status = read_answer(wire).status;
        served += status == 200 ? 1 : 0;
        refused += status == 503 ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(served + refused, 8 * 32);
  EXPECT_GT(served, 0);
  EXPECT_TRUE(edge_.run_until([&] { return of_policy("connections") == 0 && of_policy("in_flight") == 0; }));
}

TEST(RequestKeyParts, AClaimIsOneTextNumberOrTruthValue) {
  Arena arena;
  RequestHead request;
  policy::Subject subject{request, "192.0.2.1", "r"};
  subject.claims = R"({"org":"acme","n":7,"b":true,"l":["acme"],"o":{"id":"deep"},"e":"","x":null,"u":"\u0061"})";
  const auto value = [&](const char* word) { return policy::value_of(*parse_limit_by(word), subject, arena); };
  EXPECT_EQ(value("claim:org"), "acme");
  EXPECT_EQ(value("claim:n"), "7");
  EXPECT_EQ(value("claim:b"), "true");
  EXPECT_EQ(value("claim:o.id"), "deep");
  EXPECT_EQ(value("claim:u"), "a");
  for (const char* none : {"claim:l", "claim:o", "claim:e", "claim:x", "claim:missing"}) EXPECT_EQ(value(none), "");
  subject.claims = {};
  EXPECT_EQ(value("claim:org"), "");
  const policy::RequestKey by_claim({{LimitBy::What::claim, "org"}}, 32, 64, HashKey{1, 2});
  const policy::RequestKey by_client({{LimitBy::What::client, ""}}, 32, 64, HashKey{1, 2});
  const auto address = IpAddress::parse(subject.client);
  EXPECT_EQ(by_claim.of(subject, address, arena), by_client.of(subject, address, arena)) << "counted by its client";
}

}  // namespace tidegate::l7::test::lanes_test
