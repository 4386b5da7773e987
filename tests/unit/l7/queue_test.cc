// SPDX-License-Identifier: Apache-2.0
// Requests that wait while every backend has its max_connections: who waits, in which order, who leaves, who is
// refused.
#include <gtest/gtest.h>

#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

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

TEST_F(WaitQueueTest, AHigherPriorityGoesFirstAndWhoHasWaitedLongestHasTheEighthTurn) {
  WaitQueue::Waiter &low = waiter(), &normal = waiter();
  EXPECT_TRUE(queue.join(low, 1, 100, false, QueuePriority::low));
  EXPECT_TRUE(queue.join(normal, 1, 100));
  std::vector<const WaitQueue::Waiter*> served;
  for (int turn = 0; turn < 16; ++turn) {
    EXPECT_TRUE(queue.join(waiter(), 1, 100, false, QueuePriority::high));
    served.push_back(queue.first());
    EXPECT_TRUE(queue.is_next(*queue.first()));
    WaitQueue::take_turn(*queue.first());
  }
  for (size_t turn = 0; turn < served.size(); ++turn) {
    EXPECT_EQ(served[turn] == &low, turn == 7) << turn;
    EXPECT_EQ(served[turn] == &normal, turn == 15) << turn;
  }
  for (size_t turn = 0; turn < 2; ++turn) WaitQueue::take_turn(*queue.first());
  EXPECT_EQ(queue.first(), nullptr) << "the high ones that gave up two turns have come";
}

// Each priority has its own order. One that leaves, and one that is pushed out, is no turn and leaves no trace.
TEST_F(WaitQueueTest, WhoLeavesCountsForNoTurn) {
  WaitQueue::Waiter &low = waiter(), &a = waiter(), &b = waiter();
  for (int i = 0; i < 100; ++i) {
    EXPECT_TRUE(queue.join(low, 1, 100, false, QueuePriority::low));
    EXPECT_TRUE(queue.join(a, 1, 100, false, QueuePriority::high));
    EXPECT_TRUE(queue.join(b, 1, 100, false, QueuePriority::high));
    EXPECT_EQ(queue.first(), &a);
    WaitQueue::leave(a);
    EXPECT_EQ(queue.first(), &b);
    WaitQueue::leave(b);
    EXPECT_EQ(queue.first(), &low);
    WaitQueue::leave(low);
    EXPECT_EQ(queue.size(), 0u);
  }
}

TEST_F(WaitQueueTest, AFullQueuePushesTheLastOfTheLowestPriorityOut) {
  WaitQueue::Waiter &low = waiter(), &last_low = waiter(), &normal = waiter(), &high = waiter(), &late = waiter();
  EXPECT_TRUE(queue.join(low, 1, 3, false, QueuePriority::low));
  EXPECT_TRUE(queue.join(last_low, 2, 3, false, QueuePriority::low));
  EXPECT_TRUE(queue.join(normal, 3, 3));
  EXPECT_FALSE(queue.join(late, 4, 3, false, QueuePriority::low)) << "nobody is lower";
  const WaitQueue::Joined joined = queue.join(high, 5, 3, false, QueuePriority::high);
  EXPECT_TRUE(joined);
  EXPECT_EQ(joined.pushed_out, &last_low);
  EXPECT_TRUE(last_low.is_pushed_out() && !last_low.waits());
  WaitQueue::leave(last_low);
  EXPECT_FALSE(last_low.is_pushed_out());
  EXPECT_EQ(queue.join(late, 6, 3).pushed_out, &low);
  EXPECT_FALSE(queue.join(low, 7, 3)) << "normal ones do not push normal ones out";
  EXPECT_EQ(queue.size(), 3u);
  EXPECT_FALSE(queue.join(low, 8, 0, false, QueuePriority::high)) << "a reload took the queue away";
}

// A twin keeps all waiters in one list. Both must name the same next waiter, and nobody may wait longer than promised.
TEST_F(WaitQueueTest, ServesInThePromisedOrder) {
  struct One {
    WaitQueue::Waiter* waiter;
    QueuePriority priority;
    uint64_t latest_turn;
  };
  std::vector<One> twin;  // in the order of arrival
  std::mt19937 random(5);
  for (uint64_t turn = 0; turn < 2'000;) {
    if (twin.empty() || random() % 100 < 52) {
      const auto priority = static_cast<QueuePriority>(random() % 8 == 0 ? 0 : 1 + random() % 2);
      twin.push_back({&waiter(), priority, turn + (twin.size() + 1) * kQueueTurns});
      EXPECT_TRUE(queue.join(*twin.back().waiter, random(), 1'000'000, false, priority));
      continue;
    }
    auto next = twin.begin();
    if (turn % kQueueTurns != kQueueTurns - 1) {
      for (auto each = twin.begin(); each != twin.end(); ++each) {
        if (each->priority > next->priority) next = each;
      }
    }
    ASSERT_EQ(queue.first(), next->waiter);
    EXPECT_LE(turn, next->latest_turn);
    WaitQueue::take_turn(*next->waiter);
    twin.erase(next);
    ++turn;
  }
}

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

// Routes of three priorities, which waited in the worst order. A client that leaves changes nothing for the others.
TEST_F(QueueTest, ThePriorityOfTheRouteDecidesWhoGoesFirst) {
  edge_.add_route("/low", pool_).queue_priority = QueuePriority::low;
  edge_.add_route("/high", pool_).queue_priority = QueuePriority::high;
  edge_.start();
  fill(0);
  uint64_t count = 0;
  for (const char* path : {"/low", "/gone", "/normal", "/high", "/high?2"}) {
    client(path);
    EXPECT_TRUE(until_waiting(++count));
  }
  std::next(clients_.begin(), 2)->reset();
  EXPECT_TRUE(until_waiting(4));
  allow(5);
  int answers = 0;
  for (Wire& wire : clients_) {
    if (&wire != &*std::next(clients_.begin(), 2)) answers += read_answer(wire).status == 200 ? 1 : 0;
  }
  EXPECT_EQ(answers, 5);
  EXPECT_EQ(asked_, (std::vector<std::string>{"GET /0", "GET /high", "GET /high?2", "GET /normal", "GET /low"}));
  HttpRequest question;
  question.query = "url=http%3A%2F%2Fa.test%2Fhigh";
  const Result<nlohmann::json> explained = edge_.proxy().explain(question);
  ASSERT_TRUE(explained);
  EXPECT_EQ((*explained)["queue"]["priority"], "high");
}

// As much of a high priority as comes, one that waits longest has every eighth turn.
TEST_F(QueueTest, NoStreamOfHighPriorityKeepsALowOneWaitingForEver) {
  edge_.add_route("/low", pool_).queue_priority = QueuePriority::low;
  edge_.add_route("/high", pool_).queue_priority = QueuePriority::high;
  edge_.start();
  fill(0);
  Wire& low = client("/low");
  EXPECT_TRUE(until_waiting(1));
  for (uint64_t turn = 1; turn <= 8; ++turn) {
    client("/high");
    EXPECT_TRUE(until_waiting(2));
    allow(1);
    ASSERT_TRUE(edge_.run_until([&] { return origin_.requests() == 1 + turn; }));
    EXPECT_TRUE(until_waiting(1));
  }
  {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(asked_.size(), 9u);
    EXPECT_EQ(asked_.back(), "GET /low");
  }
  allow(20);
  EXPECT_EQ(read_answer(low).status, 200);
}

TEST_F(QueueTest, InAFullQueueALowerPriorityGivesWayAndIsTold) {
  edge_.model.pools[pool_].queue_size = 2;
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  edge_.add_route("/low", pool_).queue_priority = QueuePriority::low;
  edge_.add_route("/high", pool_).queue_priority = QueuePriority::high;
  edge_.start();
  fill(0);
  const auto of_client = [&](const char* path, int number) -> Wire& {
    Wire& wire = clients_.emplace_back(Wire::connect(edge_.endpoint()));
    wire.send(get(path, "a.test", "X-Forwarded-For: 192.0.2." + std::to_string(number) + "\r\n"));
    return wire;
  };
  Wire& low = of_client("/low", 1);
  EXPECT_TRUE(until_waiting(1));
  Wire& normal = of_client("/normal", 2);
  EXPECT_TRUE(until_waiting(2));
  Wire& high = of_client("/high", 3);
  EXPECT_EQ(read_answer(low).status, 503);
  EXPECT_EQ(waiting(), 2u);
  EXPECT_EQ(read_answer(of_client("/low", 4)).status, 503);
  EXPECT_EQ(read_answer(of_client("/normal", 5)).status, 503);
  allow(3);
  EXPECT_EQ(read_answer(high).status, 200);
  EXPECT_EQ(read_answer(normal).status, 200);
  EXPECT_EQ(waiting(), 0u);
  EXPECT_EQ(edge_.metric("tidegate_l7_pool_pushed_out_requests_total{pool=\"p\"}"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"pool_busy\"}"), 3u);
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
