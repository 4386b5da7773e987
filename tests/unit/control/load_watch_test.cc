// SPDX-License-Identifier: Apache-2.0
// The load reports of a real control's proxies become a share in the live state, and reach its followers.
#include "control/health/load_watch.h"

#include "control/api/shapes.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::load_watch_test {

using nlohmann::json;
using ::testing::HasSubstr;

ProxyCounters counters(uint64_t at_s, double cpu_s, uint64_t connections = 0) {
  return {at_s * kNsPerS, static_cast<uint64_t>(cpu_s * 1e9), 2, connections, 1'000};
}

TEST(LoadWatch, TheLoadIsWhateverIsNearerToItsBound) {
  EXPECT_DOUBLE_EQ(*load_between(counters(10, 1), counters(20, 11)), 50) << "ten seconds of two workers' twenty";
  EXPECT_DOUBLE_EQ(*load_between(counters(10, 1), counters(20, 3, 700)), 70);
  EXPECT_FALSE(load_between(counters(10, 5), counters(20, 1))) << "it was started anew";
  EXPECT_FALSE(load_between(counters(10, 5), counters(10, 5))) << "the same report";
}

TEST(LoadWatch, AReportThatIsNoneIsNotTaken) {
  const json good = {
      {"load", {{"at_ns", 1}, {"cpu_ns", 0}, {"workers", 1}, {"connections", 0}, {"max_connections", 1}}}};
  EXPECT_TRUE(ProxyCounters::from_json(good));
  for (const char* member : {"at_ns", "workers", "max_connections"}) {
    json bad = good;
    bad["load"][member] = "much";
    EXPECT_FALSE(ProxyCounters::from_json(bad)) << member;
  }
  for (const json& bad : {json(), json::array(), json::object(), json{{"load", 7}}}) {
    EXPECT_FALSE(ProxyCounters::from_json(bad)) << bad;
  }
}

constexpr const char* kZone = "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\n";

// One node with a proxy at each of two sites. Only the first is this host's and answers.
class LoadedEdge : public ::testing::Test {
 protected:
  void SetUp() override {
    host.directory.write("z", kZone);
    host.options.config = host.directory.write("edge.yaml", R"(sites:
  - {name: eu, location: {latitude: 50, longitude: 8}, shed_above: 60}
  - {name: us, location: {latitude: 40, longitude: -74}}
nodes:
  - {name: box, site: eu, l7: {workers: 2}}
  - {name: far, site: us, l7: {workers: 2}}
vips:
  - {name: eu, site: eu, addresses: [203.0.113.1]}
  - {name: us, site: us, addresses: [203.0.113.2]}
zones:
  - {name: example.test, file: z}
steers:
  - {name: www.example.test, policy: shed, ttl: 10s, targets: [{vip: eu}, {vip: us}]}
)");
    host.start();
    proxy = std::make_unique<FakePlane>(loop, host.options.run_dir, "l7");
    fleet = std::make_unique<Fleet>(loop, state(), FleetOptions{"box", true, host.options.run_dir, {}});
    watch = std::make_shared<LoadWatch>(loop, state(), *fleet, 600'000);
    watch->update();
  }
  HostState& state() { return host.control->host_state(); }

  // The proxy's next report: `load` per cent of its two cores in the ten seconds since the last.
  void report(double load) {
    at_s += 10;
    cpu_s += 10 * 2 * load / 100;
    proxy->status["load"] = {{"at_ns", at_s * kNsPerS},
                             {"cpu_ns", static_cast<uint64_t>(cpu_s * 1e9)},
                             {"workers", 2},
                             {"connections", 0},
                             {"max_connections", 1'000}};
    bool done = false;
    watch->look([&] { done = true; });
    ASSERT_TRUE(pump(loop, [&] { return done; }));
  }
  uint32_t share() {
    const auto& loads = state().live_state()->loads;
    const auto load = loads.find("site/eu");
    return load == loads.end() ? 0 : load->second.shed_permille;
  }

  EventLoop loop;
  Host host{loop};
  std::unique_ptr<FakePlane> proxy;
  std::unique_ptr<Fleet> fleet;
  std::shared_ptr<LoadWatch> watch;
  uint64_t at_s = 100;
  double cpu_s = 0;
};

TEST_F(LoadedEdge, ASiteShedsWhileItIsLoadedAndCallsBackAfterwards) {
  report(95);
  EXPECT_EQ(share(), 0U) << "one report tells no load";
  report(95);
  report(95);
  EXPECT_GT(share(), 0U);
  const uint32_t first = share();
  for (int i = 0; i < 5; ++i) report(95);
  EXPECT_GT(share(), first);
  for (int i = 0; i < 60 && share() != 0; ++i) report(10);
  EXPECT_EQ(share(), 0U);
  EXPECT_TRUE(state().live_state()->loads.empty());
}

TEST_F(LoadedEdge, ALoadBelowTheBoundWritesNothing) {
  const uint64_t before = state().head().live_state;
  for (int i = 0; i < 5; ++i) report(59);
  EXPECT_EQ(state().head().live_state, before);
}

TEST_F(LoadedEdge, ASiteWithoutReportsKeepsItsShare) {
  for (int i = 0; i < 4; ++i) report(95);
  const uint32_t before = share();
  ASSERT_GT(before, 0U);
  proxy.reset();
  bool done = false;
  watch->look([&] { done = true; });
  ASSERT_TRUE(pump(loop, [&] { return done; }));
  EXPECT_EQ(share(), before);
}

TEST_F(LoadedEdge, TheNextWatchGoesOnFromTheShareInForce) {
  for (int i = 0; i < 4; ++i) report(95);
  const uint32_t before = share();
  watch = std::make_shared<LoadWatch>(loop, state(), *fleet, 600'000);
  watch->update();
  report(57);
  report(57);
  EXPECT_EQ(share(), before) << "within the band nothing moves";
}

TEST_F(LoadedEdge, WithoutSuchASteerNothingIsShedAnyMore) {
  for (int i = 0; i < 4; ++i) report(95);
  ASSERT_GT(share(), 0U);
  EXPECT_EQ(host.call("PUT", "/v1/config/steers/www.example.test", "policy: nearest\ntargets: [{vip: eu}, {vip: us}]\n",
                      {{"Content-Type", "application/yaml"}, {"If-Match", "*"}})
                .status,
            200);
  watch->update();
  EXPECT_TRUE(state().live_state()->loads.empty());
}

TEST_F(LoadedEdge, TheShareIsToldByTheApiTheMetricsAndTheStreamOfReplicas) {
  for (int i = 0; i < 4; ++i) report(95);
  const json told = body_of(host.call("GET", "/v1/health"))["loads"]["site/eu"];
  EXPECT_EQ(told["shed_permille"], share());
  EXPECT_GE(told["load_percent"], 90);
  std::string text;
  watch->append_metrics(text);
  EXPECT_THAT(text, HasSubstr("tidegate_control_site_shed_ratio{site=\"eu\"} 0."));
  const Result<LiveState> again = live_state_from_json(to_json(*state().live_state()));
  ASSERT_TRUE(again);
  EXPECT_EQ(again->loads.at("site/eu").shed_permille, share());
  json of_before = to_json(*state().live_state());
  of_before.erase("loads");
  EXPECT_TRUE(live_state_from_json(of_before)) << "a control of an earlier release sends none";
  json bad = to_json(*state().live_state());
  bad["loads"]["site/eu"]["shed_permille"] = "much";
  EXPECT_FALSE(live_state_from_json(bad));
}

}  // namespace tidegate::testing::load_watch_test
