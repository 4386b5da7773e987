// SPDX-License-Identifier: Apache-2.0
// Balancing among levels (sites, backups), subsets, slow starts, ejection with a maximum share, panic, and the policies
// that draw two.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/snapshot.h"
#include "core/clock.h"
#include "l7/backend/pool.h"

namespace tidegate::l7::balance_test {

constexpr uint64_t kNow = 1'000 * kNsPerS;

class BalanceTest : public ::testing::Test {
 protected:
  // Backends b0, b1, ... with weight 100.
  void add(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      Backend backend;
      backend.name = "b" + std::to_string(config_.backends.size());
      backend.addresses = {*IpAddress::parse("192.0.2.1")};
      config_.backends.push_back(backend);
    }
  }
  void make(const PoolShape& shape = {}) {
    auto model = std::make_shared<Model>();
    config_.name = "p";
    model->pools.push_back(config_);
    snapshot_ = make_snapshot(1, "d", model, std::make_shared<LiveState>(live_state_));
    pool_ = std::make_unique<BackendPool>(*snapshot_, 0, registry_, HashKey{1, 2}, shape);
  }
  void drain(const std::string& backend) { live_state_.overrides[backend_key("p", backend)] = {}; }
  BackendRuntime& runtime(const std::string& backend) { return *registry_.backend("p", backend); }
  const PoolMember& member(const std::string& backend) const {
    for (const PoolMember& each : pool_->members()) {
      if (each.name == backend) return each;
    }
    throw std::runtime_error("no member " + backend);
  }
  // Ejects it like the proxy.
  bool eject(const std::string& backend, uint64_t now_ns = kNow) {
    bool ejected = false;
    for (uint32_t i = 0; i < config_.eject_after && !ejected; ++i)
      ejected = pool_->note_failure(member(backend), now_ns);
    return ejected;
  }
  std::map<std::string, int> picks(int count, uint64_t now_ns = kNow, bool hashed = false) const {
    std::map<std::string, int> out;
    for (int i = 0; i < count; ++i) {
      const uint64_t draw = mix64(static_cast<uint64_t>(i) + 1);
      const PoolMember* chosen = pool_->choose({.hash = hashed ? draw : 0, .random = draw, .now_ns = now_ns}).member;
      ++out[chosen == nullptr ? "none" : chosen->name];
    }
    return out;
  }

  Pool config_;
  LiveState live_state_;
  RuntimeRegistry registry_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::unique_ptr<BackendPool> pool_;
};

TEST_F(BalanceTest, BackupsGetNothingWhileTheOthersAreEnough) {
  add(3);
  config_.backends[2].backup = true;
  make();
  EXPECT_EQ(picks(1'000), (std::map<std::string, int>{{"b0", 500}, {"b1", 500}}));
  EXPECT_EQ(pool_->shares(kNow)[2], 0);
}

TEST_F(BalanceTest, BackupsGetWhatTheOthersCannotTake) {
  add(5);
  config_.backends[4].backup = true;
  for (const char* name : {"b0", "b1"}) drain(name);
  make();  // half of the weight, times 1.4
  EXPECT_NEAR(pool_->shares(kNow)[2], 0.3, 1e-9);
  EXPECT_NEAR(picks(10'000)["b4"], 3'000, 200);
  for (const char* name : {"b2", "b3"}) drain(name);
  make();
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b4", 100}}));
}

TEST_F(BalanceTest, BackupsHelpForEjectedBackendsToo) {
  add(3);
  config_.backends[2].backup = true;
  make();
  ASSERT_TRUE(eject("b0"));
  EXPECT_NEAR(pool_->shares(kNow + 1)[2], 0.3, 1e-9);
  EXPECT_NEAR(picks(10'000, kNow + 1)["b2"], 3'000, 200);
  EXPECT_EQ(picks(10'000, kNow + 1)["b0"], 0);
  EXPECT_EQ(picks(1'000, kNow + config_.eject_ms * kNsPerMs + 1)["b2"], 0) << "after the ejection";
}

TEST_F(BalanceTest, TheOwnSiteGoesFirstAndOthersTakeTheOverflow) {
  add(4);
  config_.prefer_site = true;
  for (size_t i = 0; i < 4; ++i) config_.backends[i].site = i < 2 ? 0 : 1;
  make({.site = 0});
  EXPECT_EQ(picks(1'000), (std::map<std::string, int>{{"b0", 500}, {"b1", 500}}));
  drain("b0");
  make({.site = 0});
  std::map<std::string, int> told = picks(10'000);
  EXPECT_NEAR(told["b1"], 7'000, 200);
  EXPECT_NEAR(told["b2"] + told["b3"], 3'000, 200);
  make({.site = 1});
  EXPECT_EQ(picks(1'000), (std::map<std::string, int>{{"b2", 500}, {"b3", 500}}));
  make();  // a proxy without a site has no neighbours
  EXPECT_EQ(picks(300).size(), 3u);
}

TEST_F(BalanceTest, AKeyOfAHashStaysOnItsLevel) {
  add(4);
  config_.policy = PoolPolicy::ring_hash;
  config_.load_bound = 100;
  config_.backends[3].backup = true;
  drain("b0");
  make();
  for (uint64_t i = 0; i < 200; ++i) {
    const uint64_t hash = mix64(i + 1);
    std::set<std::string> told;
    for (uint64_t random = 0; random < 8; ++random) {
      told.insert(pool_->choose({.hash = hash, .random = mix64(random), .now_ns = kNow}).member->name);
    }
    EXPECT_EQ(told.size(), 1u);
  }
}

TEST_F(BalanceTest, ASubsetHasTheBackendsWithAllLabels) {
  add(3);
  config_.backends[0].labels = {"canary"};
  config_.backends[1].labels = {"gpu", "canary"};
  const std::vector<std::string> canary{"canary"}, both{"canary", "gpu"};
  make({.labels = canary});
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b0", 50}, {"b1", 50}}));
  make({.labels = both});
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b1", 100}}));
  make();
  EXPECT_EQ(picks(300).size(), 3u);
}

TEST_F(BalanceTest, ABackendThatComesIntoServiceStartsSlowlyWhateverThePolicy) {
  for (const PoolPolicy policy :
       {PoolPolicy::weighted_round_robin, PoolPolicy::consistent_hash, PoolPolicy::ring_hash}) {
    config_ = {};
    config_.policy = policy;
    config_.load_bound = 100;
    config_.slow_start_ms = 10'000;
    live_state_ = {};
    std::destroy_at(&registry_);  // it cannot be assigned, because views of its names would remain
    std::construct_at(&registry_);
    add(2);
    drain("b1");
    make();
    pool_->enter_service(kNow, true);
    live_state_ = {};
    make();
    pool_->enter_service(kNow, false);
    const auto share_at = [&](uint64_t ms) { return picks(10'000, kNow + ms * kNsPerMs, true)["b1"] / 10'000.0; };
    const double whole = share_at(10'000);
    EXPECT_NEAR(whole, 0.5, 0.06);
    EXPECT_LT(share_at(1), whole * 0.3) << static_cast<int>(policy);
    EXPECT_GT(share_at(1), 0.0) << "never nothing";
    EXPECT_GT(share_at(5'000), share_at(1));
    EXPECT_LT(share_at(5'000), whole);
  }
}

TEST_F(BalanceTest, NobodyStartsSlowlyWithTheProcess) {
  add(2);
  config_.slow_start_ms = 10'000;
  make();
  pool_->enter_service(kNow, true);
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b0", 50}, {"b1", 50}}));
  pool_->enter_service(kNow + kNsPerS, false);
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b0", 50}, {"b1", 50}})) << "they were in service before";
}

TEST_F(BalanceTest, APoolWhoseEveryBackendStartsSlowlyServes) {
  add(2);
  config_.slow_start_ms = 10'000;
  make();
  pool_->enter_service(kNow, false);
  std::map<std::string, int> told = picks(1'000);
  EXPECT_EQ(told["none"], 0);
  EXPECT_GT(told["b0"], 300);
  EXPECT_GT(told["b1"], 300);
}

TEST_F(BalanceTest, AfterItsEjectionABackendStartsSlowly) {
  add(2);
  config_.slow_start_ms = 10'000;
  make();
  pool_->enter_service(kNow, true);
  ASSERT_TRUE(eject("b0"));
  const uint64_t over = kNow + config_.eject_ms * kNsPerMs + 1;
  EXPECT_LT(picks(1'000, over)["b0"], 200);
  EXPECT_EQ(picks(1'000, over + 10 * kNsPerS)["b0"], 500);
}

TEST_F(BalanceTest, NoMoreThanTheLargestShareIsEjected) {
  add(4);
  config_.eject_max_share = 0.5;
  make();
  EXPECT_TRUE(eject("b0"));
  EXPECT_TRUE(eject("b1"));
  EXPECT_FALSE(eject("b2"));
  EXPECT_EQ(picks(100, kNow + 1), (std::map<std::string, int>{{"b2", 50}, {"b3", 50}}));
  const uint64_t over = kNow + config_.eject_ms * kNsPerMs + 1;
  EXPECT_TRUE(eject("b2", over)) << "when the others are back";
}

TEST_F(BalanceTest, OneBackendMayAlwaysBeEjected) {
  add(3);
  config_.eject_max_share = 0.1;
  make();
  EXPECT_TRUE(eject("b0"));
  EXPECT_FALSE(eject("b1"));
}

TEST_F(BalanceTest, InPanicHealthDoesNotCount) {
  add(4);
  config_.panic_threshold = 0.5;
  make();
  ASSERT_TRUE(eject("b0") && eject("b1"));
  EXPECT_FALSE(pool_->in_panic(kNow + 1)) << "half is not below half";
  ASSERT_TRUE(eject("b2"));
  const uint64_t later = kNow + 100 * kNsPerMs;
  EXPECT_TRUE(pool_->in_panic(later));
  EXPECT_EQ(picks(100, later).size(), 4u);
}

TEST_F(BalanceTest, TheBetterOfTwoIsTheOneWithFewerRequests) {
  add(2);
  config_.policy = PoolPolicy::random_of_two;
  make();
  runtime("b0").in_flight = 3;
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b1", 100}}));
  runtime("b1").in_flight = 5;
  EXPECT_EQ(picks(100), (std::map<std::string, int>{{"b0", 100}}));
}

TEST_F(BalanceTest, RandomOfTwoReachesEveryBackendAndNoEjectedOne) {
  add(20);
  config_.policy = PoolPolicy::random_of_two;
  make();
  EXPECT_EQ(picks(2'000).size(), 20u);
  for (int i = 0; i < 19; ++i) ASSERT_TRUE(eject("b" + std::to_string(i)));
  EXPECT_EQ(picks(100, kNow + 1), (std::map<std::string, int>{{"b19", 100}}));
}

TEST_F(BalanceTest, PeakEwmaLeavesABackendThatAnswersSlowlyAndComesBack) {
  add(2);
  config_.policy = PoolPolicy::peak_ewma;
  make();
  runtime("b0").latency.observe(2 * kNsPerMs, kNow);
  runtime("b1").latency.observe(2 * kNsPerMs, kNow);
  runtime("b0").latency.observe(50 * kNsPerMs, kNow);  // a peak counts at once
  EXPECT_EQ(picks(100)["b0"], 0);
  runtime("b1").in_flight = 30;  // 31 requests of 2 ms are more than one of 50
  EXPECT_EQ(picks(100)["b1"], 0);
  runtime("b1").in_flight = 0;
  for (int s = 1; s <= 60; ++s) runtime("b1").latency.observe(2 * kNsPerMs, kNow + s * kNsPerS);
  EXPECT_GT(picks(100, kNow + 60 * kNsPerS)["b0"], 0) << "what was slow a minute ago is asked again";
}

TEST_F(BalanceTest, TheRingMovesOnlyTheKeysOfTheBackendThatLeaves) {
  add(5);
  config_.policy = PoolPolicy::ring_hash;
  config_.load_bound = 100;
  make();
  std::map<uint64_t, std::string> before;
  std::map<std::string, int> shares;
  for (uint64_t i = 1; i <= 5'000; ++i) {
    before[i] = pool_->choose({.hash = mix64(i), .now_ns = kNow}).member->name;
    ++shares[before[i]];
    EXPECT_EQ(before[i], pool_->preferred(mix64(i))->name);
  }
  for (const auto& [name, share] : shares) EXPECT_NEAR(share, 1'000, 350) << name;
  drain("b2");
  make();
  for (const auto& [i, name] : before) {
    const std::string now = pool_->choose({.hash = mix64(i), .now_ns = kNow}).member->name;
    if (name != "b2") ASSERT_EQ(now, name);
    ASSERT_NE(now, "b2");
  }
}

TEST_F(BalanceTest, TheRingPassesOnWhatIsOverTheBound) {
  add(4);
  config_.policy = PoolPolicy::ring_hash;
  make();
  const std::string preferred = pool_->preferred(42)->name;
  registry_.pool("p")->in_flight = 40;
  for (const char* name : {"b0", "b1", "b2", "b3"}) runtime(name).in_flight = 10;
  runtime(preferred).in_flight = 13;  // the bound is ceil(1.25 * 41 / 4) = 13
  const std::string next = pool_->choose({.hash = 42, .now_ns = kNow}).member->name;
  EXPECT_NE(next, preferred);
  EXPECT_EQ(next, pool_->choose({.hash = 42, .now_ns = kNow}).member->name);
}

TEST_F(BalanceTest, AnOpenBreakerIsPassedOverAndHoldsEvenIfNoOtherIsLeft) {
  add(2);
  config_.breaker.enabled = true;
  config_.breaker.consecutive_failures = 1;
  make();
  for (const char* name : {"b0", "b1"}) {
    const PoolMember& each = member(name);
    each.breaker->settle(each.breaker->ask(kNow, config_.breaker), Breaker::Result::failed, kNow, config_.breaker);
    if (name == std::string("b0")) EXPECT_EQ(picks(10), (std::map<std::string, int>{{"b1", 10}}));
  }
  const BackendPool::Choice choice = pool_->choose({.now_ns = kNow});
  EXPECT_TRUE(choice.member == nullptr && choice.broken && !choice.full);
  EXPECT_NE(pool_->choose({.now_ns = kNow + 10 * kNsPerS}).member, nullptr);
}

TEST_F(BalanceTest, ABreakerOfThePoolIsOneForAll) {
  add(2);
  config_.breaker = {.enabled = true, .scope = BreakerScope::pool, .consecutive_failures = 1};
  make();
  EXPECT_EQ(member("b0").breaker, member("b1").breaker);
  const PoolMember& each = member("b0");
  each.breaker->settle(each.breaker->ask(kNow, config_.breaker), Breaker::Result::failed, kNow, config_.breaker);
  EXPECT_TRUE(pool_->choose({.now_ns = kNow}).broken);
}

}  // namespace tidegate::l7::balance_test
