// SPDX-License-Identifier: Apache-2.0
#include "conf/snapshot.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

#include <gtest/gtest.h>

#include <functional>

namespace tidegate::snapshot_test {

// One pool "web" with a (weight 100) and b (weight 50), probed; a VIP at site "eu" with a service that uses the pool.
struct Edge {
  Model model;
  LiveState live_state;
  uint64_t version = 7;

  Edge() {
    model.sites.push_back({"eu", {}});
    model.probes.emplace_back().name = "alive";
    Pool& pool = model.pools.emplace_back();
    pool.name = "web";
    pool.probe = 0;
    pool.backends.resize(2);
    pool.backends[0].name = "a";
    pool.backends[1].name = "b";
    pool.backends[1].weight = 50;
    model.vips.push_back({"vip", 0, {}});
    Service& service = model.services.emplace_back();
    service.name = "https";
    service.vip = 0;
    service.pool = 0;
  }
  Pool& pool() { return model.pools[0]; }
  void verdict(const char* backend, bool up, const char* reason = "connect: refused") {
    live_state.health[backend_key("web", backend)] = {up, up ? "" : reason, 1};
  }
  void both_up() {
    verdict("a", true);
    verdict("b", true);
  }
  void admin(const std::string& key, OverrideState state = OverrideState::drained) {
    live_state.overrides[key] = {state, "ops", "upgrade", 1};
  }
  std::shared_ptr<const Snapshot> snapshot() const {
    return make_snapshot(version, "digest", std::make_shared<const Model>(model),
                         std::make_shared<const LiveState>(live_state));
  }
};

struct Case {
  const char* name;
  std::function<void(Edge&)> arrange;
  BackendState a, b;
  const char *why_a, *why_b;
  bool usable_a, usable_b;
  bool pool_up, fail_open, vip_up;
};

constexpr BackendState up = BackendState::up, draining = BackendState::draining, down = BackendState::down;

const Case kCases[] = {
    {"both up", [](Edge& e) { e.both_up(); }, up, up, "", "", true, true, true, false, true},
    {"one failed its probe", [](Edge& e) { e.verdict("a", false), e.verdict("b", true); }, down, up,
     "probe: connect: refused", "", false, true, true, false, true},
    {"all failed: open uses all", [](Edge& e) { e.verdict("a", false), e.verdict("b", false, "timeout"); }, down, down,
     "probe: connect: refused", "probe: timeout", true, true, false, true, false},
    {"all failed: closed uses none",
     [](Edge& e) {
       e.pool().all_down = AllDown::closed;
       e.verdict("a", false), e.verdict("b", false);
     },
     down, down, "probe: connect: refused", "probe: connect: refused", false, false, false, false, false},
    {"failing open leaves the drained alone",
     [](Edge& e) { e.verdict("a", false), e.verdict("b", false), e.admin("backend/web/a"); }, down, down,
     "probe: connect: refused; drained by ops: upgrade", "probe: connect: refused", false, true, false, true, false},
    {"no verdict of one", [](Edge& e) { e.verdict("b", true); }, down, up, "no verdict yet", "", false, true, true,
     false, true},
    {"no verdict of any, open", [](Edge&) {}, up, up, "no verdict yet", "no verdict yet", true, true, true, false,
     true},
    {"no verdict of any, closed", [](Edge& e) { e.pool().all_down = AllDown::closed; }, down, down, "no verdict yet",
     "no verdict yet", false, false, false, false, false},
    {"beside a file nobody probes",
     [](Edge& e) {
       e.version = 0;
       e.pool().all_down = AllDown::closed;
     },
     up, up, "", "", true, true, true, false, true},
    {"a verdict without a probe is stale",
     [](Edge& e) {
       e.pool().probe = kNone;
       e.verdict("a", false);
     },
     up, up, "", "", true, true, true, false, true},
    {"drained", [](Edge& e) { e.both_up(), e.admin("backend/web/a"); }, draining, up, "drained by ops: upgrade", "",
     false, true, true, false, true},
    {"taken down", [](Edge& e) { e.both_up(), e.admin("backend/web/a", OverrideState::down); }, down, up,
     "taken down by ops: upgrade", "", false, true, true, false, true},
    {"all drained: not even open uses them",
     [](Edge& e) { e.both_up(), e.admin("backend/web/a"), e.admin("backend/web/b"); }, draining, draining,
     "drained by ops: upgrade", "drained by ops: upgrade", false, false, false, false, false},
    {"pool drained", [](Edge& e) { e.both_up(), e.admin("pool/web"); }, draining, draining,
     "pool drained by ops: upgrade", "pool drained by ops: upgrade", false, false, false, false, false},
    {"pool down and backend drained: the worse holds, both are told",
     [](Edge& e) { e.both_up(), e.admin("backend/web/a"), e.admin("pool/web", OverrideState::down); }, down, down,
     "drained by ops: upgrade; pool taken down by ops: upgrade", "pool taken down by ops: upgrade", false, false, false,
     false, false},
    {"weight 0 drains", [](Edge& e) { e.both_up(), e.pool().backends[1].weight = 0; }, up, draining, "", "weight 0",
     true, false, true, false, true},
    {"weight 0 is not used by failing open",
     [](Edge& e) { e.verdict("a", false), e.verdict("b", true), e.pool().backends[1].weight = 0; }, down, draining,
     "probe: connect: refused", "weight 0", true, false, false, true, false},
    {"share of weight below the threshold",
     [](Edge& e) { e.pool().up_threshold = 0.5, e.verdict("a", false), e.verdict("b", true); }, down, up,
     "probe: connect: refused", "", false, true, false, false, false},
    {"share of weight at the threshold",
     [](Edge& e) {
       e.pool().up_threshold = 0.5, e.pool().backends[1].weight = 100, e.verdict("a", false), e.verdict("b", true);
     },
     down, up, "probe: connect: refused", "", false, true, true, false, true},
    {"site drained: its VIP goes, its backends stay", [](Edge& e) { e.both_up(), e.admin("site/eu"); }, up, up, "", "",
     true, true, true, false, false},
};

TEST(Snapshot, WeighsWordsAgainstTheModel) {
  for (const Case& each : kCases) {
    SCOPED_TRACE(each.name);
    Edge edge;
    each.arrange(edge);
    const std::shared_ptr<const Snapshot> snapshot = edge.snapshot();
    const PoolStatus& pool = snapshot->pools[0];
    EXPECT_STREQ(name(pool.backends[0].state), name(each.a));
    EXPECT_STREQ(name(pool.backends[1].state), name(each.b));
    EXPECT_EQ(pool.backends[0].why, each.why_a);
    EXPECT_EQ(pool.backends[1].why, each.why_b);
    EXPECT_EQ(snapshot->usable(0, 0), each.usable_a);
    EXPECT_EQ(snapshot->usable(0, 1), each.usable_b);
    EXPECT_EQ(pool.up, each.pool_up);
    EXPECT_EQ(pool.fail_open, each.fail_open);
    EXPECT_EQ(snapshot->vip_up[0], each.vip_up);
  }
}

TEST(Snapshot, CountsAVipWithoutServicesAsUpUnlessItsSiteIsDrained) {
  Edge edge;
  edge.model.services.clear();
  edge.verdict("a", false), edge.verdict("b", false);
  edge.model.vips.push_back({"elsewhere", kNone, {}});
  EXPECT_TRUE(edge.snapshot()->vip_up[0]);
  edge.admin("site/eu");
  EXPECT_FALSE(edge.snapshot()->vip_up[0]);
  EXPECT_TRUE(edge.snapshot()->vip_up[1]);
  EXPECT_TRUE(edge.snapshot()->site_drained[0]);
}

TEST(Snapshot, TakesAVipDownWhenAnyOfItsServicesHasNoPool) {
  Edge edge;
  edge.both_up();
  Pool& other = edge.model.pools.emplace_back();
  other.name = "dead";
  other.backends.emplace_back().name = "c";
  Service& service = edge.model.services.emplace_back();
  service.vip = 0;
  service.pool = 1;
  EXPECT_TRUE(edge.snapshot()->vip_up[0]);
  edge.live_state.overrides["backend/dead/c"] = {};
  EXPECT_FALSE(edge.snapshot()->vip_up[0]);
}

TEST(Snapshot, SharesTheModelBetweenWords) {
  const auto model = std::make_shared<const Model>();
  const auto first = make_snapshot(1, "", model, std::make_shared<const LiveState>());
  const auto second = make_snapshot(1, "", model, std::make_shared<const LiveState>());
  EXPECT_EQ(first->model.get(), second->model.get());
}

}  // namespace tidegate::snapshot_test
