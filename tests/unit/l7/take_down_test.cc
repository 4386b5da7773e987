// SPDX-License-Identifier: Apache-2.0
// An operator takes a backend or a pool down: its running work in the proxy ends. A drained backend finishes its work.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "l7/limits.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::take_down_test {

constexpr std::string_view kUpgrade =
    "GET /b1 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
constexpr std::string_view kUpgraded =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

// Answers by path: half a body and then nothing, a tunnel, nothing at all, or everything. It counts connections that
// are cut off.
class Halting {
 public:
  Origin::Handler handler() {
    return [this](const std::string& head, Wire& wire) {
      if (head.find("Upgrade") != std::string::npos || head.find("upgrade") != std::string::npos) {
        wire.send(kUpgraded);
        return ends(wire);
      }
      if (head.find("/half") != std::string::npos) {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
        return ends(wire);
      }
      if (head.find("/silent") != std::string::npos) return ends(wire);
      return wire.send(Origin::ok("whole"));
    };
  }
  std::atomic<size_t> under_way{0};  // requests that wait for the proxy to close

 private:
  bool ends(Wire& wire) {
    ++under_way;
    wire.read_to_end();
    --under_way;
    return false;
  }
};

// One pool with a halting backend b1; `others` come after it.
struct Downed : Edge {
  explicit Downed(const std::vector<Endpoint>& others = {}) {
    std::vector<Endpoint> all{origin.endpoint()};
    all.insert(all.end(), others.begin(), others.end());
    add_route("/*", add_pool("p", all));
  }
  void set(const std::string& key, OverrideState state) {
    live = std::make_shared<LiveState>(*live);
    live->overrides[key] = {state, "ops", "disk", 1};
    publish(live);
  }
  void clear() {
    live = std::make_shared<LiveState>();
    publish(live);
  }
  uint64_t failures(const std::string& reason) const {
    return metric("tidegate_l7_failures_total{reason=\"" + reason + "\"}");
  }
  nlohmann::json explained() {
    HttpRequest request;
    request.query = "url=http://a.test/";
    return (*proxy().explain(request))["eligible"][0];
  }

  Halting halting;
  Origin origin{halting.handler()};
  std::shared_ptr<LiveState> live = std::make_shared<LiveState>();
};

// A download and a tunnel that continue at b1. Read `wires` to their end to see that both are cut.
std::vector<Wire> start_work(Downed& edge) {
  std::vector<Wire> wires;
  wires.push_back(Wire::connect(edge.endpoint()));
  wires.back().send(get("/half"));
  wires.back().read_until("half");
  wires.push_back(Wire::connect(edge.endpoint()));
  wires.back().send(kUpgrade);
  wires.back().read_until("\r\n\r\n");
  // The origin counts a request after it has sent what the client has read.
  EXPECT_TRUE(edge.run_until([&] { return edge.halting.under_way == wires.size(); }));
  return wires;
}

TEST(TakeDown, EndsDownloadsAndTunnelsOfABackendAndChargesItNothing) {
  Downed edge;
  edge.start();
  std::vector<Wire> wires = start_work(edge);
  ASSERT_EQ(edge.halting.under_way, 2u);
  EXPECT_EQ(edge.explained()["in_flight"], 2);
  edge.set(backend_key("p", "b1"), OverrideState::down);
  for (Wire& wire : wires) EXPECT_TRUE(wire.at_end());
  EXPECT_TRUE(edge.run_until([&] { return edge.halting.under_way == 0 && edge.explained()["in_flight"] == 0; }));
  EXPECT_EQ(edge.failures("backend_taken_down"), 2u);
  EXPECT_EQ(edge.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
  EXPECT_EQ(edge.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}"), 0u);
  const nlohmann::json explained = edge.explained();
  EXPECT_EQ(explained["state"], "down");
  EXPECT_EQ(explained["why"], "taken down by ops: disk");
  EXPECT_EQ(explained["running_work"], "ends");
  edge.clear();
  EXPECT_TRUE(edge.run_until([&] { return ask(edge.endpoint(), get("/")).body == "whole"; }));
}

TEST(TakeDown, APoolThatIsTakenDownEndsWhatRunsAtEachOfItsBackends) {
  Downed edge;
  edge.start();
  std::vector<Wire> wires = start_work(edge);
  edge.set(pool_key("p"), OverrideState::down);
  for (Wire& wire : wires) EXPECT_TRUE(wire.at_end());
  EXPECT_TRUE(edge.run_until([&] { return ask(edge.endpoint(), get("/")).status == 503; }));
}

// The honest twin: a drain, also of the pool, and a probe's verdict let everything continue.
TEST(TakeDown, ADrainLetsDownloadsAndTunnelsFinish) {
  Downed edge;
  edge.start();
  std::vector<Wire> wires = start_work(edge);
  edge.set(backend_key("p", "b1"), OverrideState::drained);
  edge.set(pool_key("p"), OverrideState::drained);
  ASSERT_TRUE(edge.run_until([&] { return ask(edge.endpoint(), get("/")).status == 503; })) << "it is in force";
  EXPECT_EQ(edge.halting.under_way, 2u);
  EXPECT_EQ(edge.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}"), 2u) << "seen while it drains";
  EXPECT_EQ(edge.explained()["running_work"], "goes on");
  EXPECT_EQ(edge.explained()["in_flight"], 2);
  EXPECT_EQ(edge.failures("backend_taken_down"), 0u);
}

TEST(TakeDown, ABystanderOnAnotherBackendGoesOn) {
  Halting elsewhere;
  Origin other(elsewhere.handler());
  Downed edge;
  edge.add_route("/half", edge.add_pool("other", {other.endpoint()}));
  edge.start();
  Wire bystander = Wire::connect(edge.endpoint());
  bystander.send(get("/half"));
  bystander.read_until("half");
  Wire silent = Wire::connect(edge.endpoint());
  silent.send(get("/silent"));
  ASSERT_TRUE(edge.run_until([&] { return edge.halting.under_way == 1; }));
  edge.set(pool_key("p"), OverrideState::down);
  EXPECT_EQ(read_answer(silent).status, 503);
  EXPECT_TRUE(edge.run_until([&] { return elsewhere.under_way == 1; }));
}

TEST(TakeDown, ARequestWithoutAnAnswerGoesToAnotherBackendWhereThatIsSafe) {
  Origin alive(Origin::says("alive"));
  Downed edge({alive.endpoint()});
  edge.model.pools[0].policy = PoolPolicy::weighted_round_robin;
  edge.start();
  // Two requests in turn: one waits at b1, the other was answered.
  const auto wait_at_b1 = [&](const std::string& request) {
    const size_t before = edge.halting.under_way;
    for (;;) {
      const size_t answered = alive.requests();
      Wire wire = Wire::connect(edge.endpoint());
      wire.send(request);
      EXPECT_TRUE(edge.run_until([&] { return edge.halting.under_way > before || alive.requests() > answered; }));
      if (edge.halting.under_way > before) return wire;
      if (read_answer(wire).body != "alive") ADD_FAILURE();
    }
  };
  Wire safe = wait_at_b1(get("/silent"));
  Wire unsafe = wait_at_b1("POST /silent HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  edge.set(backend_key("p", "b1"), OverrideState::down);
  EXPECT_EQ(read_answer(safe).body, "alive");
  const Answer refused = read_answer(unsafe);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.body, "The backend was taken out of service.");
  EXPECT_EQ(edge.failures("backend_taken_down"), 1u);
}

TEST(TakeDown, MoreRequestsThanOneRoundTakesAllEnd) {
  Downed edge;
  edge.start();
  std::vector<Wire> wires;
  for (size_t i = 0; i < kTakenDownPerRound + 20; ++i) {
    wires.push_back(Wire::connect(edge.endpoint()));
    wires.back().send(get("/half"));
  }
  for (Wire& wire : wires) wire.read_until("half");
  edge.set(backend_key("p", "b1"), OverrideState::down);
  for (Wire& wire : wires) EXPECT_TRUE(wire.at_end());
  EXPECT_TRUE(edge.run_until([&] { return edge.failures("backend_taken_down") == wires.size(); }));
}

TEST(TakeDown, IdleConnectionsToItAreClosed) {
  std::atomic<size_t> closed{0};
  Origin origin([&](const std::string&, Wire& wire) {
    wire.send(Origin::ok("x"));
    if (!wire.at_end()) return true;
    ++closed;
    return false;
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/")).status, 200);
  auto live = std::make_shared<LiveState>();
  live->overrides[backend_key("p", "b1")] = {OverrideState::down, "ops", "", 1};
  edge.publish(live);
  EXPECT_TRUE(edge.run_until([&] { return closed == 1; }));
}

}  // namespace tidegate::l7::test::take_down_test
