// SPDX-License-Identifier: Apache-2.0
// Requests that wait while every backend has its max_connections: who waits, in which order, who leaves, who is
// refused.
#include <gtest/gtest.h>

#include <list>
#include <mutex>
#include <nlohmann/json.hpp>

#include "core/http_server.h"
#include "l7/exchange/wait_queue.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::queue_test {

// --- the queue alone; its waiters' clients do not matter

struct WaitQueueTest : ::testing::Test {
  WaitQueue::Waiter& waiter() { return waiters.emplace_back(nullptr); }
  void TearDown() override {
    for (WaitQueue::Waiter& one : waiters) WaitQueue::leave(one);
    EXPECT_EQ(queue.size(), 0u);
    EXPECT_EQ(queue.first(), nullptr);
  }
  std::list<WaitQueue::Waiter> waiters;
  WaitQueue queue;
};

TEST_F(WaitQueueTest, TheFirstToComeIsFirstAndAnyoneMayLeave) {
  WaitQueue::Waiter &a = waiter(), &b = waiter(), &c = waiter();
  for (WaitQueue::Waiter* one : {&a, &b, &c}) EXPECT_TRUE(queue.join(*one, 1, 100));
  WaitQueue::leave(b);
  EXPECT_TRUE(queue.is_next(a));
  WaitQueue::leave(a);
  EXPECT_TRUE(queue.is_next(c));
  EXPECT_TRUE(queue.join(a, 1, 100));
  EXPECT_TRUE(queue.is_next(c));
  EXPECT_EQ(queue.size(), 2u);
}

TEST_F(WaitQueueTest, OneThatCanUseFewBackendsHoldsUpNobody) {
  WaitQueue::Waiter &picky = waiter(), &also_picky = waiter(), &a = waiter(), &b = waiter();
  EXPECT_TRUE(queue.join(picky, 1, 100, true));
  EXPECT_EQ(queue.first_for_all(), nullptr);
  EXPECT_TRUE(queue.join(also_picky, 1, 100, true));
  for (WaitQueue::Waiter* one : {&a, &b}) EXPECT_TRUE(queue.join(*one, 1, 100));
  EXPECT_TRUE(queue.is_next(picky) && queue.is_next(a));
  EXPECT_FALSE(queue.is_next(also_picky) || queue.is_next(b));
  WaitQueue::leave(picky);
  EXPECT_TRUE(queue.is_next(also_picky) && queue.is_next(a));
}

TEST_F(WaitQueueTest, AClientHasItsShareOfAQueueThatIsHalfFullAndOthersFindRoom) {
  int taken = 0;
  for (int i = 0; i < 100; ++i) taken += queue.join(waiter(), 1, 40) ? 1 : 0;
  EXPECT_EQ(taken, 20) << "alone it has half of the queue";
  for (int i = 0; i < 100; ++i) taken += queue.join(waiter(), 2, 40) ? 1 : 0;
  EXPECT_EQ(taken, 30);
  for (uint64_t client = 3; client < 100; ++client) taken += queue.join(waiter(), client, 40) ? 1 : 0;
  EXPECT_EQ(taken, 40);
}

TEST_F(WaitQueueTest, WithoutPlacesNobodyWaits) { EXPECT_FALSE(queue.join(waiter(), 1, 0)); }

// --- the proxy

// One backend that accepts one connection and answers each request when the test lets it.
class QueueTest : public ::testing::Test {
 protected:
  QueueTest()
      : origin_([this](const std::string& head, Wire& wire) {
          std::unique_lock lock(mutex_);
          asked_.push_back(head.substr(0, head.find(" HTTP")));
          changed_.wait(lock, [this] { return allowed_ > 0; });
          --allowed_;
          return wire.send(Origin::ok("x"));
        }) {
    pool_ = edge_.add_pool("p", {origin_.endpoint()});
    edge_.model.pools[pool_].max_connections = 1;
    edge_.add_route("/*", pool_);
  }
  ~QueueTest() override { allow(1'000'000); }
  void allow(int answers) {
    const std::lock_guard lock(mutex_);
    allowed_ += answers;
    changed_.notify_all();
  }
  Wire& client(const std::string& path) {
    Wire& wire = clients_.emplace_back(Wire::connect(edge_.endpoint()));
    wire.send(get(path));
    return wire;
  }
  uint64_t waiting() const { return edge_.metric("tidegate_l7_pool_queued_requests{pool=\"p\"}"); }
  bool until_waiting(uint64_t count) {
    return edge_.run_until([&] { return waiting() == count; });
  }
  // A request that has the connection, and others that wait in this order.
  void fill(int waiters) {
    client("/0");
    EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() == 1; }));
    for (int i = 1; i <= waiters; ++i) {
      client("/" + std::to_string(i));
      EXPECT_TRUE(until_waiting(static_cast<uint64_t>(i)));
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  int allowed_ = 0;
  std::vector<std::string> asked_;
  Origin origin_;
  Edge edge_;
  std::list<Wire> clients_;
  uint32_t pool_ = 0;
};

TEST_F(QueueTest, WhoComesFirstIsServedFirstOverOneConnection) {
  edge_.start();
  fill(3);
  HttpRequest question;
  question.query = "url=http%3A%2F%2Fa.test%2F";
  const Result<nlohmann::json> explained = edge_.proxy().explain(question);
  ASSERT_TRUE(explained);
  EXPECT_EQ((*explained)["queue"]["waiting"], 3);
  allow(4);
  for (Wire& wire : clients_) EXPECT_EQ(read_answer(wire).status, 200);
  EXPECT_EQ(asked_, (std::vector<std::string>{"GET /0", "GET /1", "GET /2", "GET /3"}));
  EXPECT_EQ(origin_.connections(), 1u);
  EXPECT_EQ(waiting(), 0u);
  EXPECT_EQ(edge_.metric("tidegate_l7_pool_queued_requests_total{pool=\"p\"}"), 3u);
}

TEST_F(QueueTest, AClientThatLeavesLeavesTheQueue) {
  edge_.start();
  fill(3);
  std::next(clients_.begin(), 1)->reset();  // the first one that waits
  EXPECT_TRUE(until_waiting(2));
  allow(3);
  EXPECT_EQ(read_answer(*std::next(clients_.begin(), 2)).status, 200);
  EXPECT_EQ(read_answer(*std::next(clients_.begin(), 3)).status, 200);
  EXPECT_EQ(asked_, (std::vector<std::string>{"GET /0", "GET /2", "GET /3"}));
}

// The backend's own time begins when it is asked. total_timeout also counts the wait.
TEST_F(QueueTest, TimeInTheQueueIsNotTheBackends) {
  edge_.model.pools[pool_].eject_after = 1;
  Route& limited = edge_.add_route("/limited", pool_);
  limited.total_timeout_ms = 100;
  edge_.start();
  fill(0);
  Wire& late = client("/limited");
  EXPECT_EQ(read_answer(late).status, 504);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"total_timeout\"}"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
  EXPECT_EQ(waiting(), 0u);
  allow(1);
  EXPECT_EQ(read_answer(clients_.front()).status, 200);
}

TEST_F(QueueTest, ABackendThatANewVersionBringsIsUsedThoughOthersStillWaitForTheOld) {
  Origin fresh(Origin::says("fresh"));
  Route version;
  version.name = "version";
  version.path = "/version";
  version.what = RouteAnswer{200, {}};
  edge_.model.routes.push_back(version);
  edge_.start();
  fill(1);
  Backend second;
  second.name = "b2";
  second.addresses = {fresh.endpoint().address};
  second.port = fresh.endpoint().port;
  edge_.model.pools[pool_].backends.push_back(second);
  edge_.model.routes.back().what = RouteAnswer{204, {}};
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] { return ask(edge_.endpoint(), get("/version")).status == 204; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "fresh");
  EXPECT_EQ(waiting(), 1u);
  allow(2);
  for (Wire& wire : clients_) EXPECT_EQ(read_answer(wire).status, 200);
}

// A retry waits for the only backend left to it. Meanwhile, requests that may use the others overtake it.
TEST_F(QueueTest, ARetryWaitsForTheOnlyBackendThatIsLeftToItAndHoldsUpNobody) {
  Origin moody(
      [](const std::string& head, Wire& wire) { return !head.starts_with("GET /bad") && wire.send(Origin::ok("y")); });
  Backend second;
  second.name = "b2";
  second.addresses = {moody.endpoint().address};
  second.port = moody.endpoint().port;
  edge_.model.pools[pool_].backends.push_back(second);
  edge_.model.pools[pool_].eject_after = 0;
  edge_.model.pools[pool_].queue_timeout_ms = 60'000;
  edge_.start();
  client("/held");  // the first one's turn
  EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() == 1; }));
  client("/bad");  // the second one's, which closes
  EXPECT_TRUE(until_waiting(1));
  EXPECT_EQ(moody.requests(), 1u);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(ask(edge_.endpoint(), get("/good")).body, "y");
  EXPECT_EQ(waiting(), 1u);
  allow(2);
  for (Wire& wire : clients_) EXPECT_EQ(read_answer(wire).status, 200);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"backend_closed\"}"), 0u);
}

// Requests wait for a full backend. An ejected one is not used instead.
TEST_F(QueueTest, AFullBackendIsWaitedForAndAnEjectedOneIsLeftAlone) {
  Origin dying([](const std::string&, Wire&) { return false; });
  Backend second;
  second.name = "b2";
  second.addresses = {dying.endpoint().address};
  second.port = dying.endpoint().port;
  edge_.model.pools[pool_].backends.push_back(second);
  edge_.model.pools[pool_].eject_after = 1;
  edge_.model.pools[pool_].eject_ms = 3'600'000;
  edge_.start();
  allow(1);
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).status, 200);  // b1's turn
  allow(1);
  EXPECT_EQ(ask(edge_.endpoint(), get("/b")).status, 200);  // b2's turn; it fails and is ejected
  EXPECT_EQ(dying.requests(), 1u);
  client("/c");
  EXPECT_TRUE(edge_.run_until([&] { return origin_.requests() == 3; }));
  client("/d");
  EXPECT_TRUE(until_waiting(1));
  allow(2);
  for (Wire& wire : clients_) EXPECT_EQ(read_answer(wire).status, 200);
  EXPECT_EQ(dying.requests(), 1u);
}

}  // namespace tidegate::l7::test::queue_test
