// SPDX-License-Identifier: Apache-2.0
// The limit policy: its algorithms beside naive twins, its table under a million keys and several threads, and what
// clients of the proxy see.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <barrier>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/limit.h"
#include "core/clock.h"
#include "core/http_server.h"
#include "l7/policy/limit_table.h"
#include "l7/policy/limiters.h"
#include "tests/unit/dns/mmdb_writer.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::limit_test {

using policy::Allowance;
using policy::LimitTable;
using policy::RequestBucket;
using policy::SlidingWindow;

// --- the algorithms beside naive twins

// A bucket as a beginner writes it: counted tokens, in nanoseconds that they need.
struct NaiveBucket {
  uint64_t interval_ns, burst;
  uint64_t tokens_ns = interval_ns * burst, last_ns = 0;
  bool take(uint64_t now_ns) {
    tokens_ns = std::min(interval_ns * burst, tokens_ns + now_ns - last_ns);
    last_ns = now_ns;
    if (tokens_ns < interval_ns) return false;
    tokens_ns -= interval_ns;
    return true;
  }
};

TEST(Limiters, ATokenBucketDecidesAsANaiveOne) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 200; ++round) {
    const RequestBucket bucket{1 + random() % 1'000'000, 1 + random() % 50};
    NaiveBucket twin{bucket.interval_ns, bucket.burst};
    uint64_t state = 0, now_ns = 1'000'000'000, allowed = 0;
    twin.last_ns = now_ns;
    for (int i = 0; i < 500; ++i) {
      now_ns += random() % (i % 50 == 0 ? bucket.interval_ns * bucket.burst * 2 : bucket.interval_ns + 1);
      const Allowance allowance = bucket.take(state, now_ns);
      ASSERT_EQ(allowance.allowed, twin.take(now_ns)) << "round " << round << ", request " << i;
      if (allowance.allowed) {
        ASSERT_EQ(allowance.remaining, twin.tokens_ns / twin.interval_ns);
        state = allowance.state;
        ++allowed;
      } else {
        ASSERT_GT(allowance.retry_ns, 0u);
        ASSERT_TRUE(bucket.take(state, now_ns + allowance.retry_ns).allowed);
        ASSERT_FALSE(bucket.take(state, now_ns + allowance.retry_ns - 1).allowed);
      }
    }
    ASSERT_GT(allowed, 0u);
  }
}

TEST(Limiters, ASlidingWindowDecidesAsCountsInAMap) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 200; ++round) {
    const SlidingWindow window{1'000 + random() % 1'000'000, 1 + random() % 100};
    std::map<uint64_t, uint64_t> counts;  // by window
    uint64_t state = 0, now_ns = 77'000'000'000;
    for (int i = 0; i < 500; ++i) {
      now_ns += random() % (i % 100 == 0 ? window.window_ns * 3 : window.window_ns / window.most + 2);
      const uint64_t index = now_ns / window.window_ns, left_ns = window.window_ns - now_ns % window.window_ns;
      const long double carried = static_cast<long double>(counts[index - 1]) * left_ns / window.window_ns;
      const bool expected = carried + counts[index] + 1 <= window.most;
      const Allowance allowance = window.take(state, now_ns);
      ASSERT_EQ(allowance.allowed, expected) << "round " << round << ", request " << i;
      if (expected) {
        ++counts[index];
        state = allowance.state;
      } else {
        ASSERT_TRUE(window.take(state, now_ns + allowance.retry_ns + 1).allowed);
      }
    }
  }
}

TEST(Limiters, ADebtFromAStricterQuotaEnds) {
  const RequestBucket strict{3'600'000'000'000, 10}, loose{1'000'000'000, 5};
  uint64_t state = 0;
  for (int i = 0; i < 10; ++i) state = strict.take(state, 1).state;
  EXPECT_FALSE(loose.take(state, 1).allowed);
  EXPECT_EQ(loose.take(state, 1).retry_ns, loose.interval_ns);
}

TEST(Limiters, ABookedTurnComesInOrderAndNoLaterThanTheWait) {
  const RequestBucket bucket{1'000, 1, 2'500};
  uint64_t state = 0;
  std::vector<uint64_t> turns;
  for (int i = 0; i < 5; ++i) {
    const Allowance allowance = bucket.take(state, 10'000);
    if (!allowance.allowed) {
      EXPECT_GT(allowance.retry_ns, bucket.wait_ns);
      continue;
    }
    turns.push_back(allowance.retry_ns);
    state = allowance.state;
  }
  EXPECT_EQ(turns, (std::vector<uint64_t>{0, 1'000, 2'000}));
}

// At three times the quota, evenly spread, each window lets the quota pass, within 5 %.
TEST(Limiters, AnEvenLoadAboveTheQuotaGetsTheQuota) {
  const SlidingWindow window{1'000'000'000, 1'000};
  const RequestBucket bucket{1'000'000, 1'000};
  uint64_t state = 0, tokens = 0, passed = 0, passed_bucket = 0;
  constexpr uint64_t kSeconds = 50;
  for (uint64_t i = 0; i < 3'000 * kSeconds; ++i) {
    const uint64_t now_ns = 5'000'000'000 + i * 333'333;
    if (const Allowance a = window.take(state, now_ns); a.allowed) ++passed, state = a.state;
    if (const Allowance a = bucket.take(tokens, now_ns); a.allowed) ++passed_bucket, tokens = a.state;
  }
  EXPECT_NEAR(static_cast<double>(passed), 1'000 * kSeconds, 50 * kSeconds);
  EXPECT_NEAR(static_cast<double>(passed_bucket), 1'000 * (kSeconds + 1), 50 * kSeconds)
      << "the quota, and the first burst";
}

// --- the table

constexpr uint64_t kNow = 1'000'000'000;
std::atomic<uint64_t>& state_of(LimitTable& table, uint64_t key) {
  return table.find_or_add(mix64(key + 1), kNow, [](uint64_t state) { return state; });
}

TEST(LimitTableTest, AMillionKeysInUseEachHaveTheirOwnState) {
  constexpr uint64_t kKeys = 1'000'000;
  LimitTable table(kKeys);
  for (uint64_t key = 0; key < kKeys; ++key) state_of(table, key).store(kNow + 1 + key);
  EXPECT_LE(table.forgotten(), kKeys / 10'000) << "whose two places are full by chance";
  uint64_t lost = 0;
  for (uint64_t key = 0; key < kKeys; ++key) {
    const std::atomic<uint64_t>* const state = table.find(mix64(key + 1));
    lost += state == nullptr || state->load() != kNow + 1 + key ? 1 : 0;
  }
  EXPECT_EQ(lost, table.forgotten());
  EXPECT_LE(table.bytes(), kKeys * 40);
}

TEST(LimitTableTest, ToForeseeAKeyChangesNothing) {
  LimitTable table(1'024);
  for (uint64_t key = 0; key < 1'000; ++key) table.foresee(key);
  for (uint64_t key = 0; key < 1'000; ++key) EXPECT_EQ(table.find(key), nullptr);
  state_of(table, 7).store(kNow);
  table.foresee(7);
  EXPECT_EQ(state_of(table, 7).load(), kNow);
}

TEST(LimitTableTest, WhatIsFreeAgainIsReplacedAndAFullTableForgetsWhatIsFreeFirst) {
  LimitTable table(1'024);
  const size_t bytes = table.bytes();
  for (uint64_t key = 0; key < 100'000; ++key) state_of(table, key).store(kNow - 1);  // free again
  EXPECT_EQ(table.forgotten(), 0u);
  // One key that stays in use for long, among very many that are nearly free.
  state_of(table, 7).store(kNow * 100);
  for (uint64_t key = 1'000'000; key < 1'100'000; ++key) state_of(table, key).store(kNow + 1);
  EXPECT_GT(table.forgotten(), 90'000u);
  EXPECT_EQ(state_of(table, 7).load(), kNow * 100);
  EXPECT_EQ(table.bytes(), bytes);
}

UniqueFd copy_of(int fd) { return UniqueFd(::fcntl(fd, F_DUPFD_CLOEXEC, 0)); }

TEST(LimitTableTest, AProcessGoesOnWithWhatTheOneBeforeHasCounted) {
  policy::TableMemories before, after;
  LimitTable table(before, "quota/limit", 7, 1'024);
  state_of(table, 5).store(99);
  ASSERT_EQ(before.descriptors().size(), 1u);
  after.inherit(copy_of(before.descriptors()[0]));
  LimitTable next(after, "quota/limit", 7, 1'024);
  EXPECT_EQ(state_of(next, 5).load(), 99u);
  state_of(next, 5).store(100);
  EXPECT_EQ(state_of(table, 5).load(), 100u) << "both count in it while the old one has requests";
  EXPECT_EQ(after.descriptors().size(), 1u);
}

TEST(LimitTableTest, WhatIsOfAnotherQuotaOrOfAnotherKeyBeginsAnew) {
  policy::TableMemories before;
  LimitTable table(before, "quota/limit", 7, 1'024);
  state_of(table, 5).store(99);
  const auto next_state = [&](const std::string& key, uint64_t fingerprint, size_t keys) {
    policy::TableMemories after;
    after.inherit(copy_of(before.descriptors()[0]));
    LimitTable next(after, key, fingerprint, keys);
    return state_of(next, 5).load();
  };
  EXPECT_EQ(next_state("quota/limit", 7, 1'024), 99u);
  EXPECT_EQ(next_state("other/limit", 7, 1'024), 0u);
  EXPECT_EQ(next_state("quota/limit", 8, 1'024), 0u);
  EXPECT_EQ(next_state("quota/limit", 7, 65'536), 0u);
  policy::TableMemories forgotten;
  forgotten.inherit(copy_of(before.descriptors()[0]));
  forgotten.forget_inherited();
  LimitTable fresh(forgotten, "quota/limit", 7, 1'024);
  EXPECT_EQ(state_of(fresh, 5).load(), 0u);
}

TEST(LimitTableTest, TakesNoMemoryThatIsNotItsOwnKind) {
  using policy::TableMemory;
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_FALSE(TableMemory::adopt(UniqueFd(ends[0])));
  ::close(ends[1]);
  EXPECT_FALSE(TableMemory::adopt(UniqueFd()));
  for (const off_t bytes : {off_t{0}, off_t{4'096}, off_t{8'192}}) {
    UniqueFd open(::memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(::ftruncate(open.get(), bytes), 0);
    EXPECT_FALSE(TableMemory::adopt(copy_of(open.get()))) << "it may shrink";
    ASSERT_EQ(::fcntl(open.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL), 0);
    EXPECT_FALSE(TableMemory::adopt(std::move(open))) << bytes;
  }
}

TEST(LimitTableTest, ThreadsShareAQuotaExactly) {
  LimitTable table(1'024);
  const RequestBucket bucket{1'000, 50'000};
  std::atomic<uint64_t> allowed{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 25'000; ++i) {
        std::atomic<uint64_t>& state = state_of(table, 5);
        for (uint64_t before = state.load();;) {
          const Allowance allowance = bucket.take(before, kNow);
          if (!allowance.allowed) break;
          if (!state.compare_exchange_weak(before, allowance.state)) continue;
          ++allowed;
          break;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(allowed, 50'000u);
}

// One set of four slots, so that all keys share both places.
TEST(LimitTableTest, AKeyThatAnotherThreadAddsMeanwhileHasOneSlot) {
  LimitTable table(1);
  state_of(table, 1).store(kNow + 1);
  std::atomic<uint64_t>* of_other = nullptr;
  std::atomic<uint64_t>& state = table.find_or_add(mix64(8), kNow, [&](uint64_t known) {
    if (of_other == nullptr) {  // while this thread looks for a slot, another adds the key and counts
      of_other = &state_of(table, 7);
      of_other->store(kNow + 1);
    }
    return known;
  });
  EXPECT_EQ(&state, of_other);
  EXPECT_EQ(state.load(), kNow + 1);
}

// Each round, all threads add the same few new keys at the same moment, and each counts once in each of them.
TEST(LimitTableTest, ThreadsThatAddOneKeyCountInOneSlot) {
  constexpr int kThreads = 4, kRounds = 5'000;
  constexpr uint64_t kKeys = 3;
  LimitTable table(1'024);
  std::barrier begin(kThreads), end(kThreads);
  const auto key_of = [](int round, uint64_t key) { return static_cast<uint64_t>(round) * kKeys + key; };
  std::atomic<int> apart{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int round = 0; round < kRounds; ++round) {
        const uint64_t now_ns = kNow + static_cast<uint64_t>(round) * 1'000;
        begin.arrive_and_wait();
        for (uint64_t key = 0; key < kKeys; ++key) {
          // In use for the rest of its round, and free in the next one.
          const auto free_at_ns = [&](uint64_t count) { return count == 0 ? 0 : count / 1'000 * 1'000 + 900; };
          std::atomic<uint64_t>& state = table.find_or_add(mix64(key_of(round, key) + 1), now_ns, free_at_ns);
          for (uint64_t before = state.load();;) {
            const uint64_t count = before < now_ns ? 0 : before - now_ns;
            if (state.compare_exchange_weak(before, now_ns + count + 1)) break;
          }
        }
        end.arrive_and_wait();
        if (t != 0) continue;
        for (uint64_t key = 0; key < kKeys; ++key) {
          const std::atomic<uint64_t>* const state = table.find(mix64(key_of(round, key) + 1));
          apart += state != nullptr && state->load() == now_ns + kThreads ? 0 : 1;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(apart, 0);
  EXPECT_EQ(table.forgotten(), 0u);
}

// --- the proxy

std::string with_key(const std::string& key) { return get("/x", "a.test", "X-Key: " + key + "\r\n"); }

class LimitTest : public ::testing::Test {
 protected:
  // One request in a time that no test waits for.
  Policy limit(const std::function<void(LimitPolicy&)>& set = [](LimitPolicy&) {}) {
    auto part = std::make_shared<LimitPolicy>();
    part->requests = 1;
    part->per_ms = 3'600'000;
    set(*part);
    Policy policy;
    policy.name = "q";
    policy.parts["limit"] = part;
    return policy;
  }
  void start_on_route(Policy policy) {
    edge_.model.policies = {std::move(policy)};
    edge_.add_fixed("/x", 204).policies = {0};
    edge_.start();
  }
  int status(std::string request = get("/x")) { return ask(edge_.endpoint(), std::move(request)).status; }
  uint64_t verdicts(const std::string& verdict) {
    return edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"q\",kind=\"limit\",verdict=\"" + verdict + "\"}");
  }
  nlohmann::json explained(const std::string& path, const std::string& client = "127.0.0.1") {
    HttpRequest request;
    request.query = "url=http://a.test" + path + "&client=" + client;
    return (*edge_.proxy().explain(request))["policies"];
  }
  Edge edge_;
};

TEST_F(LimitTest, ARequestOverTheQuotaIsToldWhenToComeAgain) {
  edge_.add_fixed("/free", 204);
  start_on_route(limit([](LimitPolicy& part) { part.requests = 2; }));
  const Answer first = ask(edge_.endpoint(), get("/x"));
  EXPECT_EQ(first.status, 204);
  EXPECT_EQ(first.field("ratelimit-policy"), "\"q\";q=2;w=3600");
  EXPECT_EQ(first.field("ratelimit"), "\"q\";r=1;t=1800");
  EXPECT_EQ(first.field("retry-after"), "");
  EXPECT_EQ(status(), 204);
  const Answer over = ask(edge_.endpoint(), get("/x"));
  EXPECT_EQ(over.status, 429);
  EXPECT_NE(over.body.find("Too many requests"), std::string::npos);
  const int retry_s = std::stoi(over.field("retry-after"));
  EXPECT_TRUE(retry_s > 1'700 && retry_s <= 1'800) << retry_s;
  EXPECT_EQ(over.field("ratelimit").substr(0, 8), "\"q\";r=0;");
  const Answer free = ask(edge_.endpoint(), get("/free"));
  EXPECT_EQ(free.status, 204);
  EXPECT_EQ(free.field("ratelimit"), "");
  EXPECT_EQ(verdicts("passed"), 2u);
  EXPECT_EQ(verdicts("refused"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"rate_limited\"}"), 1u);
  EXPECT_EQ(explained("/x")[0]["verdict"], "refused");
  EXPECT_EQ(explained("/x")[0]["remaining"], 0);
  EXPECT_EQ(explained("/x", "192.0.2.1")[0]["verdict"], "passed") << "another client has a quota of its own";
  EXPECT_TRUE(explained("/free").empty());
}

TEST_F(LimitTest, AnOperatorChangesTheQuotaAndTheCountsGoOn) {
  start_on_route(limit([](LimitPolicy& part) { part.requests = 3; }));
  EXPECT_EQ(status(), 204);
  EXPECT_EQ(explained("/x")[0]["changed_by_operator"], false);
  const auto with_quota = [](uint64_t requests) {
    auto live_state = std::make_shared<LiveState>();
    live_state->overrides["limit/q"] = {OverrideState::quota, "ops", "", 1, requests, 0};
    return live_state;
  };
  // A worker takes a new plan at its next turn.
  const auto has_quota = [&](const std::string& requests) {
    return edge_.run_until([&] {
      return ask(edge_.endpoint(), get("/x")).field("ratelimit-policy") == "\"q\";q=" + requests + ";w=3600";
    });
  };
  edge_.publish(with_quota(1));
  EXPECT_TRUE(has_quota("1"));
  EXPECT_EQ(status(), 429) << "those before count";
  EXPECT_EQ(explained("/x")[0]["requests"], 1);
  EXPECT_EQ(explained("/x")[0]["changed_by_operator"], true);
  edge_.publish(with_quota(100));
  EXPECT_TRUE(has_quota("100"));
  EXPECT_EQ(status(), 204);
  edge_.publish(std::make_shared<LiveState>());
  EXPECT_EQ(explained("/x")[0]["requests"], 3) << "as configured";
}

TEST_F(LimitTest, CountsByCountryAndByTheClientWhereNobodyKnowsIt) {
  dns::test::MmdbWriter writer;
  writer.add("192.0.2.0/24", std::nullopt, {.country = "DE"});
  writer.add("198.51.100.0/24", std::nullopt, {.country = "US"});
  const dns::test::TemporaryFile file(writer.bytes());
  edge_.model.geo.mmdb = file.path();
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  start_on_route(limit([](LimitPolicy& part) { part.by = {"country"}; }));
  const auto from = [](const std::string& client) {
    return get("/x", "a.test", "X-Forwarded-For: " + client + "\r\n");
  };
  EXPECT_EQ(status(from("192.0.2.1")), 204);
  EXPECT_EQ(status(from("192.0.2.200")), 429) << "another client of the same country";
  EXPECT_EQ(status(from("198.51.100.1")), 204);
  EXPECT_EQ(status(from("203.0.113.1")), 204);
  EXPECT_EQ(status(from("203.0.113.2")), 204) << "unknown: each for itself";
  EXPECT_EQ(status(from("203.0.113.1")), 429);
}

TEST_F(LimitTest, CountsByAllWordsTogetherAndByTheClientWhereOneIsAbsent) {
  start_on_route(limit([](LimitPolicy& part) { part.by = {"route", "header:x-key"}; }));
  EXPECT_EQ(status(with_key("a")), 204);
  EXPECT_EQ(status(with_key("a")), 429);
  EXPECT_EQ(status(with_key("b")), 204);
  EXPECT_EQ(status(), 204) << "without the field it is counted by the client";
  EXPECT_EQ(status(), 429);
  EXPECT_EQ(status(with_key("b")), 429);
}

TEST_F(LimitTest, CountsByCookieAndHost) {
  start_on_route(limit([](LimitPolicy& part) { part.by = {"cookie:id", "host"}; }));
  const auto with = [](const std::string& host, const std::string& cookie) {
    return get("/x", host, "Cookie: a=1; id=" + cookie + "\r\n");
  };
  EXPECT_EQ(status(with("a.test", "1")), 204);
  EXPECT_EQ(status(with("a.test", "1")), 429);
  EXPECT_EQ(status(with("a.test", "2")), 204);
  EXPECT_EQ(status(with("b.test", "1")), 204);
}

TEST_F(LimitTest, ClientsOfANetworkCountAsOneAndExemptOnesNotAtAll) {
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  start_on_route(limit([](LimitPolicy& part) {
    part.prefix_v4 = 24;
    part.exempt = {*Cidr::parse("198.51.100.0/24")};
  }));
  const auto from = [](const std::string& client) {
    return get("/x", "a.test", "X-Forwarded-For: " + client + "\r\n");
  };
  EXPECT_EQ(status(from("192.0.2.1")), 204);
  EXPECT_EQ(status(from("192.0.2.200")), 429);
  EXPECT_EQ(status(from("192.0.3.1")), 204);
  EXPECT_EQ(status(from("2001:db8::1")), 204);
  EXPECT_EQ(status(from("2001:db8::ffff")), 429) << "a client has a /64";
  EXPECT_EQ(status(from("2001:db8:0:1::1")), 204);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(status(from("198.51.100.7")), 204);
  EXPECT_EQ(verdicts("exempt"), 5u);
}

TEST_F(LimitTest, HoldsEverywhereAlsoForWhatNoRouteTakes) {
  Policy everywhere = limit();
  everywhere.everywhere = true;
  edge_.model.policies = {everywhere};
  edge_.add_fixed("/x", 204).methods = {"GET"};
  edge_.start();
  EXPECT_EQ(status(get("/nothing")), 404);
  EXPECT_EQ(status(get("/nothing")), 429);
  EXPECT_EQ(status(), 429);
}

TEST_F(LimitTest, AMethodThatNoRouteTakesIsStillTold405) {
  Policy everywhere = limit([](LimitPolicy& part) { part.requests = 9; });
  everywhere.everywhere = true;
  edge_.model.policies = {everywhere};
  edge_.add_fixed("/x", 204).methods = {"GET"};
  edge_.start();
  const Answer answer = ask(edge_.endpoint(), "DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(answer.status, 405);
  EXPECT_EQ(answer.field("allow"), "get, head");
}

TEST_F(LimitTest, HoldsForAListenerAloneAndOnceThoughNamedTwice) {
  edge_.model.policies = {limit([](LimitPolicy& part) { part.requests = 2; })};
  Listener other = edge_.model.listeners[0];
  other.name = "other";
  other.bind = {*Endpoint::parse("127.0.0.2:0")};
  edge_.model.listeners[0].policies = {0};
  edge_.model.listeners.push_back(other);
  edge_.add_fixed("/x", 204).policies = {0};
  edge_.add_fixed("/y", 204);
  edge_.start();
  EXPECT_EQ(status(), 204);
  EXPECT_EQ(status(), 204);
  EXPECT_EQ(status(get("/y")), 429);
  EXPECT_EQ(ask(edge_.endpoint(1), get("/y")).status, 204);
}

// The proxy's timer ends the wait, so the answer comes late, but it comes.
TEST_F(LimitTest, ARequestOverTheQuotaMayWaitForItsTurn) {
  start_on_route(limit([](LimitPolicy& part) {
    part.requests = 20;
    part.per_ms = 1'000;
    part.burst = 1;
    part.wait_ms = 120;
  }));
  std::vector<Wire> wires;
  for (int i = 0; i < 6; ++i) {
    wires.push_back(Wire::connect(edge_.endpoint()));
    wires.back().send(get("/x"));
  }
  std::map<int, int> statuses;
  for (Wire& wire : wires) ++statuses[read_answer(wire).status];
  EXPECT_EQ(statuses[204] + statuses[429], 6);
  EXPECT_GE(statuses[204], 2) << "one at once, and at least one after a wait";
  EXPECT_GE(verdicts("waited"), 1u);
  EXPECT_EQ(verdicts("waited") + verdicts("passed"), static_cast<uint64_t>(statuses[204]));
}

TEST_F(LimitTest, AClientThatLeavesWhileItWaitsHarmsNobody) {
  start_on_route(limit([](LimitPolicy& part) {
    part.per_ms = 60'000;
    part.wait_ms = 60'000;
  }));
  EXPECT_EQ(status(), 204);
  {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get("/x"));
    EXPECT_TRUE(edge_.run_until([&] { return explained("/x")[0]["verdict"] == "refused"; })) << "its turn is booked";
  }
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}") == 1; }));
}

TEST_F(LimitTest, WhatWaitsIsBoundByTheTimeOfItsRoute) {
  edge_.model.policies = {limit([](LimitPolicy& part) {
    part.per_ms = 60'000;
    part.wait_ms = 60'000;
  })};
  Route& route = edge_.add_fixed("/x", 204);
  route.policies = {0};
  route.total_timeout_ms = 50;
  edge_.start();
  EXPECT_EQ(status(), 204);
  EXPECT_EQ(status(), 504);
}

TEST_F(LimitTest, WhatWasCountedSurvivesAVersionAndANewQuotaHoldsAtOnce) {
  start_on_route(limit());
  EXPECT_EQ(status(), 204);
  EXPECT_EQ(status(), 429);
  ASSERT_TRUE(edge_.publish());
  EXPECT_EQ(status(), 429);
  edge_.model.policies = {limit([](LimitPolicy& part) { part.burst = 2; })};
  ASSERT_TRUE(edge_.publish());
  EXPECT_TRUE(edge_.run_until([&] { return status() == 204; })) << "when the worker has the version";
  EXPECT_EQ(explained("/x")[0]["remaining"], 0) << "one of the two was used under the quota before";
  EXPECT_GE(verdicts("refused"), 2u) << "counters survive too";
}

TEST_F(LimitTest, HitsOfTheCacheCountAndNothingOfItIsStored) {
  const StateDir state;
  Origin origin(
      [](const std::string&, Wire& wire) { return wire.send(Origin::ok("x", "Cache-Control: max-age=60\r\n")); });
  edge_.model.nodes[0].cache.enabled = true;
  edge_.state_dir = state.path;
  edge_.model.policies = {limit([](LimitPolicy& part) {
    part.requests = 2;
    part.by = {"header:x-key"};
  })};
  Route& route = edge_.add_route("/x", edge_.add_pool("p", {origin.endpoint()}));
  route.cache.enabled = true;
  route.policies = {0};
  edge_.start();
  EXPECT_EQ(ask(edge_.endpoint(), with_key("a")).field("ratelimit").substr(0, 8), "\"q\";r=1;");
  EXPECT_TRUE(edge_.run_until([&] {
    return ask(edge_.endpoint(), with_key("b" + std::to_string(edge_.metric("tidegate_l7_requests_total"))))
               .field("cache-status")
               .find("hit") != std::string::npos;
  }));
  const Answer hit = ask(edge_.endpoint(), with_key("c"));
  EXPECT_NE(hit.field("cache-status").find("hit"), std::string::npos);
  EXPECT_EQ(hit.field("ratelimit").substr(0, 8), "\"q\";r=1;");
  EXPECT_EQ(hit.head.find("ratelimit:"), hit.head.rfind("ratelimit:")) << "one alone: none was stored";
  EXPECT_EQ(ask(edge_.endpoint(), with_key("a")).status, 200);
  EXPECT_EQ(ask(edge_.endpoint(), with_key("a")).status, 429);
}

TEST_F(LimitTest, WorkersShareAQuota) {
  edge_.model.nodes[0].l7.workers = 3;
  start_on_route(limit([](LimitPolicy& part) { part.requests = 50; }));
  int allowed = 0;
  for (int i = 0; i < 90; ++i) allowed += status() == 204 ? 1 : 0;
  EXPECT_EQ(allowed, 50);
}

TEST_F(LimitTest, TheAccessLogNamesEachVerdict) {
  const StateDir state;
  const std::string path = state.path + "/log";
  edge_.model.nodes[0].l7.access_log = path;
  start_on_route(limit());
  status();
  status();
  const auto lines = [&] {
    std::ifstream file(path);
    std::vector<std::string> out;
    for (std::string line; std::getline(file, line);) out.push_back(line);
    return out;
  };
  ASSERT_TRUE(edge_.run_until([&] { return lines().size() == 2; }));
  EXPECT_EQ(nlohmann::json::parse(lines()[0])["policies"], "q.limit=passed");
  EXPECT_EQ(nlohmann::json::parse(lines()[1])["policies"], "q.limit=refused");
  EXPECT_EQ(nlohmann::json::parse(lines()[1])["failure"], "rate_limited");
}

}  // namespace tidegate::l7::test::limit_test
