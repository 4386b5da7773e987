// SPDX-License-Identifier: Apache-2.0
#include "conf/model.h"
#include "conf/model/pool.h"
#include "l7/backend/pool.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <set>
#include <utility>

#include "conf/model/certificate.h"
#include "conf/model/node.h"
#include "conf/model/route.h"
#include "conf/snapshot.h"
#include "core/clock.h"
#include "l7/own_certificates.h"
#include "l7/plan.h"
#include "l7/plan/description.h"

namespace tidegate::l7::backend_pool_test {

class BackendPoolTest : public ::testing::Test {
 protected:
  void make(PoolPolicy policy, const std::vector<uint32_t>& weights, const LiveState& live_state = {}) {
    auto model = std::make_shared<Model>();
    Pool pool;
    pool.name = "p";
    pool.policy = policy;
    for (size_t i = 0; i < weights.size(); ++i) {
      Backend backend;
      backend.name = "b" + std::to_string(i);
      backend.addresses = {*IpAddress::parse("192.0.2.1")};
      backend.weight = weights[i];
      pool.backends.push_back(backend);
    }
    model->pools.push_back(pool);
    snapshot_ = make_snapshot(1, "d", model, std::make_shared<LiveState>(live_state));
    pool_ = std::make_unique<BackendPool>(*snapshot_, 0, registry_, HashKey{1, 2});
  }
  std::string pick(const BackendPool::Question& question) const {
    const PoolMember* member = pool_->choose(question).member;
    return member == nullptr ? "none" : member->config->name;
  }
  BackendRuntime& runtime(const std::string& backend) { return *registry_.backend("p", backend); }

  RuntimeRegistry registry_;
  std::shared_ptr<const Snapshot> snapshot_;
  std::unique_ptr<BackendPool> pool_;
};

TEST_F(BackendPoolTest, WeightedRoundRobinGivesExactShares) {
  make(PoolPolicy::weighted_round_robin, {500, 300, 200});
  std::map<std::string, int> picks;
  for (int i = 0; i < 1000; ++i) ++picks[pick({})];
  EXPECT_EQ(picks, (std::map<std::string, int>{{"b0", 500}, {"b1", 300}, {"b2", 200}}));
}

TEST_F(BackendPoolTest, WeightedRoundRobinTakesNoTurnsInVainWhileAllAreEjected) {
  make(PoolPolicy::weighted_round_robin, {499, 307, 211});
  for (const char* backend : {"b0", "b1", "b2"}) ASSERT_TRUE(runtime(backend).eject(1, 1'000'000));
  const uint64_t before = pool_->runtime().turn.load();
  EXPECT_NE(pick({.now_ns = 2}), "none");
  EXPECT_LE(pool_->runtime().turn.load() - before, 3u);
}

TEST(SpreadTurns, NeverPutsAWeightsTurnsInARowWhenTheyCanBeApart) {
  const std::vector<uint32_t> weights{4, 2, 2};
  const std::vector<uint16_t> turns = spread_turns(weights);
  ASSERT_EQ(turns.size(), 4u);  // 2:1:1
  for (size_t i = 0; i + 1 < turns.size(); ++i) EXPECT_NE(turns[i], turns[i + 1]);
}

TEST(SpreadTurns, ScalesLargeWeightsDownAndStarvesNobody) {
  const std::vector<uint32_t> weights{65521, 1, 32749};
  const std::vector<uint16_t> turns = spread_turns(weights);
  EXPECT_LE(turns.size(), kMaxTurns + weights.size());
  EXPECT_EQ(std::set<uint16_t>(turns.begin(), turns.end()).size(), 3u);
}

TEST_F(BackendPoolTest, LeastRequestsPrefersTheLeastLoadedForItsWeight) {
  make(PoolPolicy::least_requests, {100, 200});
  runtime("b0").in_flight = 2;
  runtime("b1").in_flight = 3;
  for (uint64_t random = 0; random < 10; ++random) EXPECT_EQ(pick({.random = random}), "b1");
  runtime("b1").in_flight = 9;
  for (uint64_t random = 0; random < 10; ++random) EXPECT_EQ(pick({.random = random}), "b0");
}

TEST_F(BackendPoolTest, ConsistentHashKeepsAKeyWhereItWasWhenAnotherBackendGoes) {
  make(PoolPolicy::consistent_hash, {100, 100, 100});
  std::map<uint64_t, std::string> before;
  for (uint64_t i = 0; i < 1000; ++i) before[i] = pick({.hash = mix64(i + 1)});
  LiveState live_state;
  live_state.overrides[backend_key("p", "b1")] = {};
  make(PoolPolicy::consistent_hash, {100, 100, 100}, live_state);
  int moved = 0;
  for (const auto& [i, backend] : before) {
    const std::string now = pick({.hash = mix64(i + 1)});
    EXPECT_NE(now, "b1");
    if (backend != "b1" && now != backend) ++moved;
  }
  EXPECT_LT(moved, 60);  // Maglev moves a few per cent
}

TEST_F(BackendPoolTest, ConsistentHashPassesOnWhatIsOverTheBound) {
  make(PoolPolicy::consistent_hash, {100, 100, 100, 100});
  const std::string preferred = pick({.hash = 42});
  registry_.pool("p")->in_flight = 40;
  for (const char* name : {"b0", "b1", "b2", "b3"}) runtime(name).in_flight = 10;
  runtime(preferred).in_flight = 13;  // the bound is ceil(1.25 * 41 / 4) = 13
  const std::string next = pick({.hash = 42});
  EXPECT_NE(next, preferred);
  EXPECT_EQ(next, pick({.hash = 42})) << "overflow of one key goes one way";
  runtime(preferred).in_flight = 12;
  EXPECT_EQ(pick({.hash = 42}), preferred);
}

TEST_F(BackendPoolTest, DrainedAndWeightlessBackendsGetNothing) {
  LiveState live_state;
  live_state.overrides[backend_key("p", "b0")] = {};
  make(PoolPolicy::weighted_round_robin, {100, 0, 100}, live_state);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(pick({}), "b2");
  live_state.overrides[backend_key("p", "b2")] = {};
  make(PoolPolicy::weighted_round_robin, {100, 0, 100}, live_state);
  EXPECT_EQ(pick({}), "none");
}

TEST_F(BackendPoolTest, TriedBackendsAreAvoidedWhileAnotherExists) {
  for (const PoolPolicy policy :
       {PoolPolicy::weighted_round_robin, PoolPolicy::least_requests, PoolPolicy::consistent_hash}) {
    make(policy, {100, 100});
    const uint32_t tried[] = {0};
    for (uint64_t i = 0; i < 20; ++i) EXPECT_EQ(pick({.hash = mix64(i), .random = i, .tried = tried}), "b1");
    const uint32_t all_tried[] = {0, 1};
    EXPECT_NE(pick({.tried = all_tried}), "none");
  }
}

TEST_F(BackendPoolTest, EjectedBackendsAreAvoidedUntilTheirTimeIsOver) {
  make(PoolPolicy::weighted_round_robin, {100, 100});
  constexpr uint64_t kNow = 1'000'000'000'000, kEject = 10'000'000'000;
  static_assert(kEject == 10'000 * kNsPerMs);  // the default
  const PoolMember& b0 = pool_->members()[0];
  for (int i = 0; i < 4; ++i) EXPECT_FALSE(pool_->note_failure(b0, kNow));
  EXPECT_TRUE(pool_->note_failure(b0, kNow));
  EXPECT_FALSE(pool_->note_failure(b0, kNow)) << "ejected once, not for each request under way";
  for (int i = 0; i < 10; ++i) EXPECT_EQ(pick({.now_ns = kNow + 1}), "b1");
  std::set<std::string> later;
  for (int i = 0; i < 10; ++i) later.insert(pick({.now_ns = kNow + kEject + 1}));
  EXPECT_EQ(later.size(), 2u);
  EXPECT_TRUE(pool_->note_failure(b0, kNow + kEject + 1)) << "on probation: one failure is enough";
  runtime("b0").note_success();
  EXPECT_FALSE(pool_->note_failure(b0, kNow)) << "forgiven";
}

TEST_F(BackendPoolTest, WhenAllAreEjectedThePoolFailsOpen) {
  make(PoolPolicy::weighted_round_robin, {100, 100});
  for (const char* name : {"b0", "b1"}) {
    ASSERT_TRUE(runtime(name).eject(1, 1000));
  }
  EXPECT_NE(pick({.now_ns = 2}), "none");
}

TEST_F(BackendPoolTest, RuntimeStateSurvivesANewSnapshot) {
  make(PoolPolicy::least_requests, {100});
  const uint32_t id = pool_->members()[0].runtime->id;
  pool_->members()[0].runtime->in_flight = 7;
  make(PoolPolicy::least_requests, {100, 100});
  EXPECT_EQ(pool_->members()[0].runtime->id, id);
  EXPECT_EQ(pool_->members()[0].runtime->in_flight, 7u);
  EXPECT_NE(pool_->members()[1].runtime->id, id);
}

TEST(RetryBudget, AllowsTheFractionOfRequestsAndASmallFloor) {
  RetryBudget budget;
  for (int i = 0; i < 100; ++i) budget.deposit(0.2);
  int allowed = 0;
  while (budget.withdraw(1'000'000'000)) ++allowed;
  EXPECT_EQ(allowed, 25);  // twenty saved, plus five from the minimum
  EXPECT_FALSE(budget.withdraw(1'100'000'000));
  EXPECT_TRUE(budget.withdraw(1'200'000'000)) << "the floor gives one each 200 ms";
}

TEST(RetryBudget, SavesForNoStorm) {
  RetryBudget budget;
  for (int i = 0; i < 100'000; ++i) budget.deposit(0.2);
  EXPECT_LE(budget.balance(), 101.0);
}

TEST(Describe, MakesTheTablesOfWhatHasChangedAlone) {
  auto model = std::make_shared<Model>();
  model->nodes.emplace_back().name = "box";
  for (const char* name : {"p", "q"}) {
    Pool pool;
    pool.name = name;
    pool.policy = PoolPolicy::consistent_hash;
    for (const char* backend_name : {"a", "b"}) {
      Backend backend;
      backend.name = backend_name;
      backend.addresses = {*IpAddress::parse("192.0.2.1")};
      pool.backends.push_back(backend);
    }
    model->pools.push_back(pool);
  }
  const auto described = [](const std::shared_ptr<const Model>& of, const LiveState& live_state,
                            const Description* previous) {
    const auto snapshot = make_snapshot(1, "d", of, std::make_shared<LiveState>(live_state));
    return *describe({snapshot, 0, {1, 2}, {3, 4}}, previous);
  };
  const Description first = described(model, {}, nullptr);
  EXPECT_EQ(first.tables[0]->members.size(), 2U);

  LiveState drained;
  drained.overrides[backend_key("q", "b")] = {};
  const Description second = described(model, drained, &first);
  EXPECT_EQ(second.tables[0], first.tables[0]);
  EXPECT_EQ(second.tables[1]->members, std::vector<uint32_t>{0});

  auto changed = std::make_shared<Model>(*model);
  changed->pools[0].backends[0].weight = 7;
  const Description third = described(changed, drained, &second);
  EXPECT_EQ(third.tables[0]->servers[0].weight, 7U);
  EXPECT_EQ(third.tables[1], second.tables[1]);
}

// A Description draws no key, so two of the same inputs are equal. The proxy makes the certificate once, also if it
// describes the order again: for a candidate, or with other live state.
TEST(Describe, LeavesTheKeysOfOrderedCertificatesToTheProxy) {
  auto model = std::make_shared<Model>();
  model->nodes.emplace_back().name = "box";
  Certificate& ordered = model->certificates.emplace_back();
  ordered.name = "ordered";
  ordered.order.names = {"a.test", "b.test"};
  auto live_state = std::make_shared<LiveState>();
  live_state->proofs["alpn/a.test"] = std::string(64, 'a');
  const auto described = [&](const Description* previous) {
    return *describe({make_snapshot(1, "d", model, live_state), 0, {1, 2}, {3, 4}}, previous);
  };
  Description first = described(nullptr), second = described(nullptr);
  EXPECT_EQ(first.certificates[0].certificate.hash, second.certificates[0].certificate.hash);
  EXPECT_EQ(first.certificates[0].key.hash, second.certificates[0].key.hash);
  ASSERT_EQ(first.acme_identities.size(), 1U);
  EXPECT_EQ(first.acme_identities[0].identity.key_pem, second.acme_identities[0].identity.key_pem);
  EXPECT_TRUE(first.certificates[0].self_made);

  OwnCertificates own;
  own.complete(first);
  own.complete(second);
  ASSERT_TRUE(first.certificates[0].certificate.bytes);
  EXPECT_EQ(
      inspect_identity({*first.certificates[0].certificate.bytes, *first.certificates[0].key.bytes})->names.size(), 2U);
  EXPECT_EQ(first.certificates[0].certificate.hash, second.certificates[0].certificate.hash);
  EXPECT_NE(first.acme_identities[0].identity.key_pem, "");
  EXPECT_EQ(first.acme_identities[0].identity.key_pem, second.acme_identities[0].identity.key_pem);
  EXPECT_EQ(described(&first).certificates[0].certificate.hash, first.certificates[0].certificate.hash);

  own.trim(first);
  EXPECT_EQ(own.size(), 2U);
  model = std::make_shared<Model>(*model);
  model->certificates[0].order.names = {"c.test"};
  live_state = std::make_shared<LiveState>();
  Description other = described(&first);
  EXPECT_TRUE(other.acme_identities.empty());
  own.complete(other);
  EXPECT_NE(other.certificates[0].certificate.hash, first.certificates[0].certificate.hash);
  own.trim(other);
  EXPECT_EQ(own.size(), 1U) << "nothing is kept that nothing shows";
}

// Two pools. The route "labelled" uses the part of p that has the label "fast".
struct AttachedPools : testing::Test {
  AttachedPools() {
    model->nodes.emplace_back().name = "box";
    for (const char* name : {"p", "q"}) {
      Pool& pool = model->pools.emplace_back();
      pool.name = name;
      for (const char* backend_name : {"a", "b"}) {
        Backend& backend = pool.backends.emplace_back();
        backend.name = backend_name;
        backend.labels = {"fast"};
        backend.addresses = {*IpAddress::parse("192.0.2.1")};
      }
    }
    for (const char* name : {"p", "q", "labelled"}) {
      Route& route = model->routes.emplace_back();
      route.name = name;
      route.path = fmt::format("/{}", name);
      route.what = RouteToPool{model->routes.size() == 2 ? 1U : 0U};
    }
    model->routes[kLabelled].labels = {"fast"};
  }
  std::shared_ptr<const Plan> attached(const std::shared_ptr<const Model>& of, const Plan* previous,
                                       const LiveState& live_state = {}) {
    const auto snapshot = make_snapshot(1, "d", of, std::make_shared<LiveState>(live_state));
    return attach(*describe({snapshot, 0, {1, 2}, {3, 4}}, previous), previous, registry, policies);
  }
  static constexpr uint32_t kP = 0, kQ = 1, kLabelled = 2;
  RuntimeRegistry registry;
  policy::Registry policies;
  std::shared_ptr<Model> model = std::make_shared<Model>();
};

TEST_F(AttachedPools, AreMadeAgainOnlyWhereSomethingHasChanged) {
  std::shared_ptr<const Plan> first = attached(model, nullptr);
  auto changed = std::make_shared<Model>(*model);
  changed->pools[kQ].backends[0].weight = 7;
  const std::shared_ptr<const Plan> second = attached(changed, first.get());
  EXPECT_EQ(&second->pool_of(kP), &first->pool_of(kP));
  EXPECT_EQ(&second->pool_of(kLabelled), &first->pool_of(kLabelled));
  EXPECT_NE(&second->pool_of(kQ), &first->pool_of(kQ));
  EXPECT_EQ(second->pool_of(kQ).members()[0].weight, 7U);

  // Nothing of the pool belongs to the plan that made it.
  first.reset();
  model.reset();
  const BackendPool& kept = second->pool_of(kP);
  EXPECT_EQ(kept.config().name, "p");
  EXPECT_EQ(kept.members()[1].config->name, "b");
  EXPECT_NE(kept.choose({}).member, nullptr);

  LiveState drained;
  drained.overrides[backend_key("p", "b")] = {};
  const std::shared_ptr<const Plan> third = attached(changed, second.get(), drained);
  EXPECT_NE(&third->pool_of(kP), &second->pool_of(kP));
  EXPECT_NE(&third->pool_of(kLabelled), &second->pool_of(kLabelled));
  EXPECT_EQ(&third->pool_of(kQ), &second->pool_of(kQ));
  EXPECT_EQ(third->pool_of(kP).members().size(), 1U);
}

TEST_F(AttachedPools, SayWhichBackendsAreTakenDownAlsoWhereTheyAreKept) {
  LiveState down;
  down.overrides[backend_key("p", "b")] = {.state = OverrideState::down};
  const std::shared_ptr<const Plan> first = attached(model, nullptr, down);
  ASSERT_EQ(first->taken_down.size(), 1U);
  auto changed = std::make_shared<Model>(*model);
  changed->pools[kQ].backends[0].weight = 7;
  const std::shared_ptr<const Plan> second = attached(changed, first.get(), down);
  EXPECT_EQ(&second->pool_of(kP), &first->pool_of(kP));
  EXPECT_EQ(second->taken_down, first->taken_down);
}

// Its place in the Model is part of what a pool is known by.
TEST_F(AttachedPools, AreMadeAgainAtAnotherPlace) {
  const std::shared_ptr<const Plan> first = attached(model, nullptr);
  auto changed = std::make_shared<Model>(*model);
  std::swap(changed->pools[kP], changed->pools[kQ]);
  const std::shared_ptr<const Plan> second = attached(changed, first.get());
  EXPECT_EQ(second->pool_of(kP).config().name, "q");
  EXPECT_EQ(second->pool_of(kQ).config().name, "p");
}

}  // namespace tidegate::l7::backend_pool_test
