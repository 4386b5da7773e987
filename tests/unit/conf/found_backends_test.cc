// SPDX-License-Identifier: Apache-2.0
// Servers that were found by names: what replaces the backend with the name in the model, and the state of each server.
#include "conf/found_backends.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "conf/backend_names.h"
#include "conf/limits.h"
#include "conf/snapshot.h"

namespace tidegate::found_backends_test {

// A pool "app" with a probe: "fixed" with an address, and "web" with a name.
struct Edge {
  Model model;
  LiveState live_state;

  Edge() {
    model.probes.emplace_back().name = "alive";
    Pool& pool = model.pools.emplace_back();
    pool.name = "app";
    pool.probe = 0;
    pool.backends.resize(2);
    pool.backends[0].name = "fixed";
    pool.backends[0].addresses = {*IpAddress::parse("192.0.2.1")};
    pool.backends[1].name = "web";
    pool.backends[1].host = "web.test";
    pool.backends[1].port = 8080;
    pool.backends[1].labels = {"blue"};
  }
  Backend& web() { return model.pools[0].backends[1]; }
  void found(const std::vector<NamedEndpoint>& endpoints, const std::string& trouble = {}) {
    live_state.names["host web.test"] = {endpoints, trouble};
  }
  void verdict(const std::string& backend, bool up) {
    live_state.health[backend_key("app", backend)] = {up, up ? "" : "connect refused", 1};
  }
  std::shared_ptr<const Snapshot> snapshot(uint64_t version = 7) const {
    return make_snapshot(version, "d", std::make_shared<const Model>(model),
                         std::make_shared<const LiveState>(live_state));
  }
};

NamedEndpoint at(const char* endpoint, uint16_t priority = 0, uint16_t weight = 1) {
  return {*Endpoint::parse(endpoint), priority, weight};
}

std::vector<std::string> names_of(const Model& model) {
  std::vector<std::string> names;
  for (const Backend& backend : model.pools[0].backends) names.push_back(backend.name);
  return names;
}

TEST(FoundBackends, EachServerStandsInThePlaceOfItsBackendWithAllItsKeys) {
  Edge edge;
  edge.found({at("192.0.2.8:0"), at("[2001:db8::9]:0")});
  const auto snapshot = edge.snapshot();
  EXPECT_EQ(names_of(*snapshot->model),
            (std::vector<std::string>{"fixed", "web/192.0.2.8:8080", "web/[2001:db8::9]:8080"}));
  EXPECT_EQ(names_of(*snapshot->configured), (std::vector<std::string>{"fixed", "web"}));
  const Backend& server = snapshot->model->pools[0].backends[1];
  EXPECT_EQ(server.addresses, std::vector<IpAddress>{*IpAddress::parse("192.0.2.8")});
  EXPECT_EQ(server.port, 8080);
  EXPECT_EQ(server.labels, std::vector<std::string>{"blue"});
  EXPECT_EQ(server.found_by, "web");
  EXPECT_EQ(server.host, "web.test") << "requests without a Host get it";
  EXPECT_TRUE(name_key(server).empty()) << "it is not looked up";
}

TEST(FoundBackends, ASrvRecordGivesPortWeightAndBackups) {
  Edge edge;
  edge.web().host.clear();
  edge.web().srv = "_http._tcp.web.test";
  edge.web().port = 0;
  edge.live_state.names["srv _http._tcp.web.test"] = {
      {at("192.0.2.8:81", 10, 3), at("192.0.2.8:81", 20, 1), at("192.0.2.9:82", 20, 60'000)}, ""};
  const std::vector<Backend> backends = edge.snapshot()->model->pools[0].backends;
  ASSERT_EQ(backends.size(), 3u) << "a server that two records name is one server";
  EXPECT_EQ(backends[1].name, "web/192.0.2.8:81");
  EXPECT_EQ(backends[1].weight, 300u);
  EXPECT_FALSE(backends[1].backup);
  EXPECT_EQ(backends[2].weight, 65'535u);
  EXPECT_TRUE(backends[2].backup);
}

TEST(FoundBackends, OnlyPoolsThatMoreThanTheProxyUsesAreLookedUpByControl) {
  Edge edge;
  EXPECT_EQ(pools_looked_up(edge.model), std::vector<uint32_t>{0});
  edge.model.pools[0].probe = kNone;
  EXPECT_TRUE(pools_looked_up(edge.model).empty());
  edge.found({at("192.0.2.8:0")});
  const auto snapshot = edge.snapshot();
  EXPECT_EQ(snapshot->model, snapshot->configured);
  edge.model.services.emplace_back().pool = 0;
  edge.model.vips.emplace_back();
  edge.model.services[0].vip = 0;
  EXPECT_EQ(pools_looked_up(edge.model), std::vector<uint32_t>{0});
  edge.model.services.clear();
  edge.model.steers.emplace_back().targets.emplace_back().what = TargetPool{0};
  EXPECT_EQ(pools_looked_up(edge.model), std::vector<uint32_t>{0});
}

TEST(FoundBackends, AChangeOfVerdictsKeepsTheModel) {
  Edge edge;
  edge.found({at("192.0.2.8:0")});
  const auto first = edge.snapshot();
  edge.verdict("web/192.0.2.8:8080", false);
  const auto with = [&] {
    return make_snapshot(7, "d", first->configured, std::make_shared<const LiveState>(edge.live_state), first.get());
  };
  EXPECT_EQ(with()->model, first->model);
  edge.found({at("192.0.2.9:0")});
  EXPECT_NE(with()->model, first->model);
  EXPECT_EQ(with()->configured, first->configured);
}

TEST(FoundBackends, EachServerHasItsOwnVerdict) {
  Edge edge;
  edge.found({at("192.0.2.8:0"), at("192.0.2.9:0"), at("192.0.2.10:0")});
  edge.verdict("fixed", true);
  edge.verdict("web/192.0.2.8:8080", true);
  edge.verdict("web/192.0.2.9:8080", false);
  const PoolStatus pool = edge.snapshot()->pools[0];
  EXPECT_EQ(pool.backends[1].state, BackendState::up);
  EXPECT_EQ(pool.backends[2].why, "probe: connect refused");
  EXPECT_EQ(pool.backends[3].state, BackendState::down);
  EXPECT_EQ(pool.backends[3].why, "no verdict yet") << "a new server waits until a probe has seen it";
}

TEST(FoundBackends, ABackendWithoutAServerIsDownAndSaysWhy) {
  Edge edge;
  edge.verdict("fixed", true);
  EXPECT_EQ(edge.snapshot()->pools[0].backends[1].why, "host web.test: not looked up yet");
  EXPECT_FALSE(edge.snapshot()->usable(0, 1));
  edge.found({}, "web.test: Server failure");
  EXPECT_EQ(edge.snapshot()->pools[0].backends[1].why, "host web.test: web.test: Server failure");
  EXPECT_EQ(edge.snapshot(0)->pools[0].backends[1].state, BackendState::up) << "of a file, the proxy looks it up";
}

TEST(FoundBackends, AServerThatItsNameLeftGetsNoNewWork) {
  Edge edge;
  edge.found({at("192.0.2.8:0"), {*Endpoint::parse("192.0.2.9:0"), 0, 1, 77}});
  for (const char* server : {"fixed", "web/192.0.2.8:8080", "web/192.0.2.9:8080"}) edge.verdict(server, true);
  const auto snapshot = edge.snapshot();
  EXPECT_EQ(snapshot->pools[0].backends[2].state, BackendState::draining);
  EXPECT_FALSE(snapshot->usable(0, 2));
}

TEST(FoundBackends, AServerOfALaterPriorityWaitsUntilNoFirstOneMayBeUsed) {
  Edge edge;
  edge.found({at("192.0.2.8:0", 10), at("192.0.2.9:0", 20)});
  for (const char* server : {"fixed", "web/192.0.2.8:8080", "web/192.0.2.9:8080"}) edge.verdict(server, true);
  EXPECT_TRUE(is_on_standby(*edge.snapshot(), 0, 2));
  EXPECT_FALSE(is_on_standby(*edge.snapshot(), 0, 1));
  edge.verdict("web/192.0.2.8:8080", false);
  EXPECT_FALSE(is_on_standby(*edge.snapshot(), 0, 2));
}

TEST(FoundBackends, ForwarderAndDnsGetNoMoreServersThanTheyHaveRoomFor) {
  Edge edge;
  std::vector<NamedEndpoint> many;
  for (uint32_t i = 0; i < kFoundServers + 100; ++i) many.push_back({{IpAddress::v4(htonl(0x0a000000 + i)), 0}, 0, 1});
  edge.found(many);
  EXPECT_EQ(edge.snapshot()->model->pools[0].backends.size(), many.size() + 1) << "for the proxy each name has a bound";
  edge.model.services.emplace_back().pool = 0;
  edge.model.vips.emplace_back();
  edge.model.services[0].vip = 0;
  EXPECT_EQ(edge.snapshot()->model->pools[0].backends.size(), kFoundServers + 1);
}

TEST(FoundBackends, AForwardersPoolGetsNoServerAtTheAddressOfAVip) {
  Edge edge;
  edge.model.vips.push_back({"v", kNone, {*IpAddress::parse("192.0.2.8")}});
  Service& service = edge.model.services.emplace_back();
  service.vip = service.pool = 0;
  edge.found({at("192.0.2.8:0"), at("192.0.2.9:0")});
  EXPECT_EQ(names_of(*edge.snapshot()->model), (std::vector<std::string>{"fixed", "web/192.0.2.9:8080"}));
  edge.found({at("192.0.2.8:0")});
  EXPECT_EQ(names_of(*edge.snapshot()->model), (std::vector<std::string>{"fixed", "web"}));
}

TEST(FoundBackends, WithoutControlNobodyFindsServersForForwarderAndDns) {
  Edge edge;
  EXPECT_TRUE(faults_without_control(edge.model, "l4").empty());
  edge.model.services.emplace_back().pool = 0;
  edge.model.steers.emplace_back().targets.emplace_back().what = TargetPool{0};
  for (const auto& [plane, pointer] :
       {std::pair("l4", "/services/0/pool"), std::pair("dns", "/steers/0/targets/0/pool")}) {
    const std::vector<Fault> faults = faults_without_control(edge.model, plane);
    ASSERT_EQ(faults.size(), 1u) << plane;
    EXPECT_EQ(faults[0].pointer, pointer);
    EXPECT_EQ(faults[0].code, "needs_control");
  }
  EXPECT_TRUE(faults_without_control(edge.model, "l7").empty());
}

TEST(FoundBackends, AnOverrideOfTheNameCountsForEachServerAndOneOfAServerForItAlone) {
  Edge edge;
  edge.found({at("192.0.2.8:0"), at("192.0.2.9:0")});
  for (const char* server : {"fixed", "web/192.0.2.8:8080", "web/192.0.2.9:8080"}) edge.verdict(server, true);
  const auto states = [&] {
    std::vector<BackendState> out;
    const auto snapshot = edge.snapshot();
    for (const BackendStatus& status : snapshot->pools[0].backends) out.push_back(status.state);
    return out;
  };
  constexpr BackendState up = BackendState::up, draining = BackendState::draining;
  edge.live_state.overrides["backend/app/web/192.0.2.8:8080"] = {OverrideState::drained, "ops", "", 1};
  EXPECT_EQ(states(), (std::vector<BackendState>{up, draining, up}));
  edge.live_state.overrides = {{"backend/app/web", {OverrideState::drained, "ops", "", 1}}};
  EXPECT_EQ(states(), (std::vector<BackendState>{up, draining, draining}));
}

}  // namespace tidegate::found_backends_test
