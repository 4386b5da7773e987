// SPDX-License-Identifier: Apache-2.0
// Requests that wait while every backend has its max_connections: who waits, in which order, who leaves, who is
// refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
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

TEST_F(WaitQueueTest, AClientThatIsAloneHasTheWholeQueueInTheOrderOfArrival) {
  std::vector<const WaitQueue::Waiter*> came;
  for (int i = 0; i < 40; ++i) {
    came.push_back(&waiter());
    EXPECT_TRUE(queue.join(waiters.back(), 1, 40));
  }
  EXPECT_FALSE(queue.join(waiter(), 1, 40)) << "none of its own gives way";
  for (const WaitQueue::Waiter* one : came) {
    ASSERT_EQ(queue.first(), one);
    WaitQueue::take_turn(*queue.first());
    if (queue.size() > 20) EXPECT_TRUE(queue.join(waiter(), 1, 40)) << "it goes after those that came before";
  }
}

TEST_F(WaitQueueTest, WhatAClientHasBeyondItsShareGivesWayToOthers) {
  std::list<const WaitQueue::Waiter*> guests;
  for (int i = 0; i < 40; ++i) {
    EXPECT_TRUE(queue.join(waiter(), 1, 40));
    if (i >= 10) guests.push_back(&waiters.back());
  }
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(queue.join(waiter(), 2, 40).pushed_out, guests.back()) << "the last to come";
    EXPECT_TRUE(guests.back()->is_pushed_out());
    guests.pop_back();
  }
  EXPECT_FALSE(queue.join(waiter(), 2, 40)) << "a guest pushes nobody out";
  EXPECT_FALSE(queue.join(waiter(), 1, 40));
  for (uint64_t client = 3; !guests.empty(); ++client) {
    EXPECT_EQ(queue.join(waiter(), client, 40).pushed_out, guests.back());
    guests.pop_back();
  }
  EXPECT_FALSE(queue.join(waiter(), 100, 40)) << "each has what is its own";
  EXPECT_EQ(queue.size(), 40u);
}

// Guests of a higher priority give way, too: otherwise one client could keep the queue full of them.
TEST_F(WaitQueueTest, AGuestGivesWayWhateverItsPriority) {
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(queue.join(waiter(), 1, 8, false, QueuePriority::high));
  const WaitQueue::Waiter* last = &waiters.back();
  EXPECT_EQ(queue.join(waiter(), 2, 8, false, QueuePriority::low).pushed_out, last);
  EXPECT_TRUE(queue.first()->waits());
  EXPECT_FALSE(queue.join(waiter(), 1, 8, false, QueuePriority::high)) << "a guest pushes out only guests";
}

TEST_F(WaitQueueTest, AClientsGuestOfALowerPriorityGivesWayToItsHigherOne) {
  for (int i = 0; i < 8; ++i) EXPECT_TRUE(queue.join(waiter(), 1, 8, false, QueuePriority::low));
  const WaitQueue::Waiter* last = &waiters.back();
  WaitQueue::Waiter& high = waiter();
  EXPECT_EQ(queue.join(high, 1, 8, false, QueuePriority::high).pushed_out, last);
  EXPECT_EQ(queue.first(), &high);
}

// A client's share is for its requests of the highest priorities, also if the others were there first.
TEST_F(WaitQueueTest, AHighRequestTakesThePlaceOfALowOneInItsClientsShare) {
  constexpr uint32_t kPlaces = 8, kShare = kPlaces / kQueueShares;
  std::vector<WaitQueue::Waiter*> low;
  for (uint64_t client = 1; client <= kQueueShares; ++client) {
    for (uint32_t i = 0; i < kShare; ++i) {
      low.push_back(&waiter());
      EXPECT_TRUE(queue.join(*low.back(), client, kPlaces, false, QueuePriority::low));
    }
  }
  WaitQueue::Waiter &high = waiter(), &normal = waiter();
  EXPECT_EQ(queue.join(high, 1, kPlaces, false, QueuePriority::high).pushed_out, low[kShare - 1]);
  EXPECT_EQ(queue.first(), &high);
  EXPECT_EQ(queue.join(normal, 1, kPlaces).pushed_out, low[0]) << "its own, and none of another client";
  EXPECT_FALSE(queue.join(waiter(), 1, kPlaces)) << "its share has nothing lower";
  EXPECT_FALSE(queue.join(waiter(), 1, kPlaces, false, QueuePriority::low));
  const WaitQueue::Joined joined = queue.join(waiter(), 1, kPlaces, false, QueuePriority::high);
  EXPECT_EQ(joined.pushed_out, &normal);
  EXPECT_FALSE(queue.join(waiter(), 1, kPlaces, false, QueuePriority::high));
  EXPECT_FALSE(queue.join(waiter(), 2, kPlaces, false, QueuePriority::low));
}

// A place in the queue is not enough: as a guest the high one would give way to others before the low one does.
TEST_F(WaitQueueTest, OthersPushOutAClientsLowRequestAndNotItsHighOne) {
  constexpr uint32_t kPlaces = 8;
  WaitQueue::Waiter &low = waiter(), &also_low = waiter(), &last_low = waiter(), &high = waiter();
  for (WaitQueue::Waiter* one : {&low, &also_low, &last_low}) {
    EXPECT_TRUE(queue.join(*one, 1, kPlaces, false, QueuePriority::low));
  }
  EXPECT_TRUE(queue.join(high, 1, kPlaces, false, QueuePriority::high));
  for (uint64_t client = 2; queue.size() < kPlaces; ++client) EXPECT_TRUE(queue.join(waiter(), client, kPlaces));
  EXPECT_EQ(queue.join(waiter(), 100, kPlaces).pushed_out, &last_low);
  EXPECT_EQ(queue.join(waiter(), 101, kPlaces).pushed_out, &also_low);
  EXPECT_TRUE(high.waits());
  WaitQueue::leave(high);
  EXPECT_TRUE(queue.join(also_low, 1, kPlaces, false, QueuePriority::low)) << "the share has room again";
}

// A client that fills the queue again and again costs another one no more than its share, and the eighth turns.
TEST_F(WaitQueueTest, AFloodOfOneClientDelaysNobodyElseByMoreThanItsShare) {
  constexpr uint32_t kPlaces = 400, kShare = kPlaces / kQueueShares;
  const auto flood = [&] {
    while (queue.join(waiter(), 1, kPlaces)) {
    }
  };
  flood();
  std::vector<WaitQueue::Waiter*> others;
  for (uint32_t i = 0; i < 20; ++i) {
    others.push_back(&waiter());
    EXPECT_TRUE(queue.join(*others.back(), 2, kPlaces));
  }
  uint32_t turns = 0;
  while (others.back()->waits()) {
    WaitQueue::take_turn(*queue.first());
    flood();
    ++turns;
  }
  EXPECT_LE(turns, (kShare + 20) * kQueueTurns / (kQueueTurns - 1) + 1);
}

// A twin of one plain list: who has a place, who is a guest and who is next, for clients and priorities that come and
// go.
struct QueueTwin {
  struct One {
    WaitQueue::Waiter* waiter;
    uint64_t client;
    QueuePriority priority;
    bool guest;
    uint64_t number;    // in the order of arrival
    uint64_t position;  // in its list
    auto list() const { return std::pair(priority, !guest); }
  };
  using Place = std::vector<One>::iterator;

  Place next(bool oldest) {
    Place best = waiting.end();
    for (Place one = waiting.begin(); one != waiting.end(); ++one) {
      const bool is_head = std::none_of(waiting.begin(), waiting.end(), [&](const One& other) {
        return other.list() == one->list() && other.position < one->position;
      });
      if (!is_head) continue;
      if (best == waiting.end() || (oldest ? one->number < best->number : one->list() > best->list())) best = one;
    }
    return best;
  }
  // True if a newcomer is a guest. If its client's full share has a request of a lower priority, the newcomer is no
  // guest: the last request of the lowest priority in the share becomes a guest, and goes before its client's other
  // guests of that priority.
  bool is_guest(uint64_t client, QueuePriority priority, uint32_t share) {
    const auto count = [&](bool guest) {
      return std::count_if(waiting.begin(), waiting.end(),
                           [&](const One& one) { return one.client == client && one.guest == guest; });
    };
    if (count(true) == 0 && count(false) < share) return false;
    One* demoted = nullptr;
    for (One& one : waiting) {
      if (one.client != client || one.guest || one.priority >= priority) continue;
      if (demoted == nullptr ||
          std::pair(demoted->priority, one.position) > std::pair(one.priority, demoted->position)) {
        demoted = &one;
      }
    }
    if (demoted == nullptr) return true;
    uint64_t position = positions++;
    for (const One& one : waiting) {
      const bool its = one.client == client && one.guest && one.priority == demoted->priority;
      if (its) position = std::min(position, one.position);
    }
    for (One& one : waiting) one.position += one.position >= position ? 1 : 0;
    ++positions;
    demoted->guest = true;
    demoted->position = position;
    return false;
  }
  Place victim(QueuePriority priority, bool guest) {
    for (const bool of_guests : {true, false}) {
      Place last = waiting.end();
      for (Place one = waiting.begin(); one != waiting.end(); ++one) {
        if (one->guest != of_guests || (one->priority >= priority && (guest || !of_guests))) continue;
        const bool later = last != waiting.end() && one->priority == last->priority && one->position > last->position;
        if (last == waiting.end() || one->priority < last->priority || later) last = one;
      }
      if (last != waiting.end() || guest) return last;
    }
    return waiting.end();
  }
  void leave(Place gone) {
    const One was = *gone;
    waiting.erase(gone);
    One* heir = nullptr;
    for (One& one : waiting) {
      if (one.client != was.client || !one.guest) continue;
      if (heir == nullptr || std::pair(one.priority, heir->position) > std::pair(heir->priority, one.position)) {
        heir = &one;
      }
    }
    if (was.guest || heir == nullptr) return;
    heir->guest = false;
    heir->position = positions++;
  }

  std::vector<One> waiting;
  uint64_t arrivals = 0, positions = 0;
};

TEST_F(WaitQueueTest, IsAsItsTwinOfOnePlainListSays) {
  constexpr uint32_t kPlaces = 24, kShare = kPlaces / kQueueShares;
  QueueTwin twin;
  uint64_t turns = 0;
  std::mt19937 random(7);
  for (int step = 0; step < 20'000; ++step) {
    if (twin.waiting.empty() || random() % 100 < 60) {
      const uint64_t client = random() % 3 == 0 ? 1 + random() % 8 : 0;
      const auto priority = static_cast<QueuePriority>(random() % 3);
      const bool guest = twin.is_guest(client, priority, kShare), full = twin.waiting.size() == kPlaces;
      const QueueTwin::Place victim = full ? twin.victim(priority, guest) : twin.waiting.end();
      WaitQueue::Waiter* const out = victim == twin.waiting.end() ? nullptr : victim->waiter;
      WaitQueue::Waiter& newcomer = waiter();
      const WaitQueue::Joined joined = queue.join(newcomer, client, kPlaces, false, priority);
      ASSERT_EQ(joined.joined, !full || out != nullptr) << step;
      ASSERT_EQ(joined.pushed_out, out) << step;
      if (out != nullptr) twin.leave(victim);
      if (joined) twin.waiting.push_back({&newcomer, client, priority, guest, twin.arrivals++, twin.positions++});
    } else {
      const QueueTwin::Place first = twin.next(turns % kQueueTurns == kQueueTurns - 1);
      ASSERT_EQ(queue.first(), first->waiter) << step;
      const bool takes_turn = random() % 4 != 0;
      const auto gone = takes_turn ? first : twin.waiting.begin() + static_cast<long>(random() % twin.waiting.size());
      takes_turn ? WaitQueue::take_turn(*gone->waiter) : WaitQueue::leave(*gone->waiter);
      turns += takes_turn ? 1 : 0;
      twin.leave(gone);
    }
    ASSERT_EQ(queue.size(), twin.waiting.size());
  }
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

// Each priority has its own order. A request that leaves or is pushed out uses no turn.
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

// Clients behind one address have the whole queue, until another client comes.
TEST_F(QueueTest, AnAddressUsesWhatNobodyElseNeedsAndLosesIt) {
  edge_.model.pools[pool_].queue_size = 8;
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  edge_.start();
  const auto of_client = [&](int number) -> Wire& {
    Wire& wire = clients_.emplace_back(Wire::connect(edge_.endpoint()));
    wire.send(
        get("/" + std::to_string(number), "a.test", "X-Forwarded-For: 192.0.2." + std::to_string(number) + "\r\n"));
    return wire;
  };
  fill(0);
  for (uint64_t i = 1; i <= 8; ++i) {
    of_client(1);
    EXPECT_TRUE(until_waiting(i));
  }
  Wire& last = clients_.back();
  EXPECT_EQ(read_answer(of_client(1)).status, 503);
  clients_.pop_back();
  Wire& other = of_client(2);
  EXPECT_EQ(read_answer(last).status, 503);
  EXPECT_EQ(waiting(), 8u);
  EXPECT_EQ(edge_.metric("tidegate_l7_pool_pushed_out_requests_total{pool=\"p\"}"), 1u);
  allow(4);  // the one that has the connection, the two of the first one's share, and then the other one
  EXPECT_EQ(read_answer(other).status, 200);
  {
    const std::lock_guard lock(mutex_);
    EXPECT_EQ(std::find(asked_.begin(), asked_.end(), "GET /2") - asked_.begin(), 3);
  }
  allow(6);
  int answered = 0;
  for (Wire& wire : clients_) {
    if (&wire != &last && &wire != &other) answered += read_answer(wire).status == 200 ? 1 : 0;
  }
  EXPECT_EQ(answered, 7 + 1);
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
