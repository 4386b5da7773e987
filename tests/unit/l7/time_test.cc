// SPDX-License-Identifier: Apache-2.0
// The meaning of each time key: when it begins and ends, and what it never cuts. The time has passed when a later
// request that it does cut has been answered.
#include <gtest/gtest.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "tests/unit/core/kept_alive.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::time_test {

constexpr std::string_view kUpgrade =
    "GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

std::string failures(const std::string& reason) { return "tidegate_l7_failures_total{reason=\"" + reason + "\"}"; }

// An origin that continues when the test says so: "/silent" never answers, "/body" stops after half of its body,
// "/tunnel" echoes, "/upload" reads no body.
class TimeTest : public ::testing::Test {
 protected:
  TimeTest()
      : origin_([this](const std::string& head, Wire& wire) {
          if (head.starts_with("GET /silent")) return !wire.at_end();
          if (head.starts_with("GET /tunnel")) {
            wire.send("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
            return wire.send(wire.read_exactly(4)) && false;
          }
          if (head.starts_with("GET /body")) {
            wire.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 8\r\n\r\nhalf");
          }
          wait();
          if (head.starts_with("GET /body")) return wire.send("half");
          size_t left = head.starts_with("PUT") ? kUploadBytes : 0;
          for (size_t read = 1; left > 0 && read > 0; left -= std::min(left, read)) read = wire.read_some().size();
          return wire.send(Origin::ok("done"));
        }) {
    pool_ = edge_.add_pool("p", {origin_.endpoint()});
    edge_.model.pools[pool_].eject_after = 0;
    edge_.model.pools[pool_].retry_attempts = 0;
  }
  ~TimeTest() override { go_on(); }
  void go_on() {
    const std::lock_guard lock(mutex_);
    goes_on_ = true;
    changed_.notify_all();
  }
  void wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return goes_on_; });
  }
  // Returns when the time that cuts "/silent" has passed.
  void let_it_pass(const std::string& reason) {
    EXPECT_EQ(ask(edge_.endpoint(), get("/silent")).status, 504);
    EXPECT_GE(edge_.metric(failures(reason)), 1u);
  }

  const StateDir state_;
  static constexpr size_t kUploadBytes = 20'000'000;  // more than the sockets can hold
  std::mutex mutex_;
  std::condition_variable changed_;
  bool goes_on_ = false;
  Origin origin_;
  Edge edge_;
  uint32_t pool_ = 0;
};

TEST_F(TimeTest, TotalTimeoutEndsWithTheResponsesHeadAndCutsNeitherBodyNorTunnel) {
  edge_.add_route("/*", pool_).total_timeout_ms = 100;
  edge_.start();
  Wire body = Wire::connect(edge_.endpoint()), tunnel = Wire::connect(edge_.endpoint());
  body.send(get("/body"));
  tunnel.send(kUpgrade);
  EXPECT_TRUE(body.read_until("half").ends_with("half"));
  EXPECT_EQ(read_answer(tunnel).status, 101);
  let_it_pass("total_timeout");
  go_on();
  EXPECT_EQ(body.read_exactly(4), "half");
  tunnel.send("ping");
  EXPECT_EQ(tunnel.read_to_end(), "ping");
}

// An upload that the backend reads slowly: first_byte_timeout counts from the request's last byte.
TEST_F(TimeTest, FirstByteTimeoutBeginsWhenTheBackendHasTheWholeRequest) {
  edge_.model.pools[pool_].first_byte_timeout_ms = 1'500;  // long enough to read what the sockets hold
  edge_.add_route("/*", pool_);
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  std::thread sender([&] {
    wire.send("PUT /upload HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(kUploadBytes) + "\r\n\r\n");
    wire.send(std::string(kUploadBytes, 'x'));
  });
  EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() == 1; }));
  let_it_pass("first_byte_timeout");
  go_on();
  EXPECT_EQ(read_answer(wire).status, 200);
  sender.join();
}

TEST_F(TimeTest, RequestTimeoutIsTheLastWordOnBodiesAndTunnelsAndChargesNobodyForThem) {
  edge_.model.listeners[0].request_timeout_ms = 100;
  edge_.add_route("/*", pool_);
  edge_.start();
  Wire body = Wire::connect(edge_.endpoint()), tunnel = Wire::connect(edge_.endpoint());
  body.send(get("/body"));
  tunnel.send(kUpgrade);
  EXPECT_TRUE(body.read_until("half").ends_with("half"));
  EXPECT_TRUE(body.at_end());
  EXPECT_EQ(read_answer(tunnel).status, 101);
  EXPECT_TRUE(tunnel.at_end());
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric(failures("exchange_timeout")) == 2; }));
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
}

// A fetch that several requests share. Its leader has less time than the others.
class SharedTimeTest : public TimeTest {
 protected:
  SharedTimeTest() {
    edge_.model.nodes[0].cache.enabled = true;
    edge_.state_dir = state_.path;
    edge_.model.listeners.push_back(edge_.model.listeners[0]);
    Listener& patient = edge_.model.listeners.back();
    patient.name = "patient";
    patient.bind = {*Endpoint::parse("127.0.0.2:0")};
  }
  Route& cached(uint32_t listener) {
    Route& route = edge_.add_route("/*", pool_);
    route.listeners = {listener};
    route.cache.enabled = true;
    return route;
  }
};

TEST_F(SharedTimeTest, ALeaderWhoseExchangeIsOverLeavesTheOthersTheirBody) {
  edge_.model.listeners[0].request_timeout_ms = 300;
  cached(0);
  cached(1);
  edge_.start();
  Wire leader = Wire::connect(edge_.endpoint(0)), other = Wire::connect(edge_.endpoint(1));
  leader.send(get("/body"));
  EXPECT_TRUE(leader.read_until("half").ends_with("half"));
  other.send(get("/body"));
  EXPECT_TRUE(other.read_until("half").ends_with("half"));
  EXPECT_TRUE(leader.at_end());
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_client_connections") == 1; }));
  go_on();
  EXPECT_EQ(other.read_exactly(4), "half");
  EXPECT_EQ(origin_.requests(), 1u);
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric(failures("exchange_timeout")) == 1; }));
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
}

TEST_F(SharedTimeTest, ALeaderWhoseTimeIsOverBeforeTheHeadLeavesTheFetchToTheNext) {
  cached(0).total_timeout_ms = 200;
  cached(1);
  edge_.start();
  Wire leader = Wire::connect(edge_.endpoint(0)), other = Wire::connect(edge_.endpoint(1));
  leader.send(get("/late"));
  EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() == 1; }));
  other.send(get("/late"));
  EXPECT_EQ(read_answer(leader).status, 504);
  EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() == 2; }));
  go_on();
  EXPECT_EQ(read_answer(other).body, "done");
}

// --- peers that vanish

TEST_F(TimeTest, TheKernelWatchesForClientsAndBackendsThatVanish) {
  edge_.add_route("/*", pool_);
  edge_.start();
  Wire tunnel = Wire::connect(edge_.endpoint());
  tunnel.send(kUpgrade);
  EXPECT_EQ(read_answer(tunnel).status, 101);
  EXPECT_TRUE(edge_.run_until([&] { return kept_alive(edge_.endpoint().port, true) == 1; }));
  EXPECT_TRUE(edge_.run_until([&] { return kept_alive(origin_.endpoint().port, false) == 1; }));
}

}  // namespace tidegate::l7::test::time_test
