// SPDX-License-Identifier: Apache-2.0
#include "conf/plane_health.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

#include <gtest/gtest.h>

#include "conf/vip_holder.h"

namespace tidegate::plane_health_test {

// Site "eu": forwarders "a" and "b", and "c" with a proxy at port 80 and a name server at port 53. A VIP for ports 80
// of pool "web" and 53 of pool "names", whose only backend is "c". Site "us" has a VIP and no forwarder.
struct Edge {
  Model model;
  LiveState live_state;

  Edge() {
    model.sites = {{"eu", {}}, {"us", {}}};
    for (const char* name : {"a", "b", "c"}) {
      Node& node = model.nodes.emplace_back();
      node.name = name;
      node.site = 0;
    }
    model.nodes[0].l4.enabled = model.nodes[1].l4.enabled = true;
    model.nodes[2].l7.enabled = model.nodes[2].dns.enabled = true;
    model.nodes[2].dns.listen = {*Endpoint::parse("192.0.2.3:53")};
    model.nodes[2].dns.httpdns_listen = {*Endpoint::parse("192.0.2.3:8053")};
    Listener& listener = model.listeners.emplace_back();
    listener.bind = {*Endpoint::parse("0.0.0.0:80")};
    model.vips = {{"vip", 0, {}}, {"elsewhere", 1, {}}};
    add_pool("web", 0, 80);
    add_pool("names", 0, 53);
  }
  void add_pool(const char* name, uint16_t port, uint16_t service_port) {
    Pool& pool = model.pools.emplace_back();
    pool.name = name;
    Backend& backend = pool.backends.emplace_back();
    backend.name = "c";
    backend.node = 2;
    backend.port = port;
    Service& service = model.services.emplace_back();
    service.vip = 0;
    service.port = service_port;
    service.pool = static_cast<uint32_t>(model.pools.size() - 1);
  }
  void down(const char* node, const char* plane, bool drains = false) {
    live_state.health[plane_key(node, plane)] = {false, "its process is gone", 1, drains};
  }
  void admin(const char* node, const char* plane, OverrideState state) {
    live_state.overrides[plane_key(node, plane)] = {state, "ops", "known", 1};
  }
  std::shared_ptr<const Snapshot> snapshot() const {
    return make_snapshot(7, "digest", std::make_shared<const Model>(model),
                         std::make_shared<const LiveState>(live_state));
  }
  BackendState backend(size_t pool) const { return snapshot()->pools[pool].backends[0].state; }
};

TEST(PlaneHealth, CostsNothingWhileNobodySaysAnything) {
  Edge edge;
  EXPECT_TRUE(edge.snapshot()->nodes.empty());
  EXPECT_EQ(edge.snapshot()->plane(0, PlaneKind::l4).state, BackendState::up);
  edge.live_state.health[plane_key("a", "l4")] = {true, "", 1};
  EXPECT_TRUE(edge.snapshot()->vip_up[0]);
}

TEST(PlaneHealth, AVipIsUpWhileOneOfItsForwardersIs) {
  Edge edge;
  edge.down("a", "l4");
  EXPECT_TRUE(edge.snapshot()->vip_up[0]);
  edge.down("b", "l4", true);
  const auto snapshot = edge.snapshot();
  EXPECT_FALSE(snapshot->vip_up[0]) << "one is down, and the other takes no new work";
  EXPECT_FALSE(snapshot->vip_drained[0]) << "nobody drained it, so a name that fails open may lead there";
  EXPECT_EQ(forwarder_trouble(*snapshot, Forwarders(*snapshot->model), 0),
            "no forwarder of the vip is up: l4 of node a: its process is gone; l4 of node b: its process is gone");
  EXPECT_TRUE(snapshot->vip_up[1]) << "the other site has no forwarder that could be down";
}

TEST(PlaneHealth, ABackendIsDownWithThePlaneThatServesItsPort) {
  Edge edge;
  edge.down("c", "l7");
  EXPECT_EQ(edge.backend(0), BackendState::down);
  EXPECT_EQ(edge.snapshot()->pools[0].backends[0].why, "l7 of node c: its process is gone");
  EXPECT_EQ(edge.backend(1), BackendState::up) << "port 53 is the name server's";
  edge.live_state.health.clear();
  edge.down("c", "dns", true);
  EXPECT_EQ(edge.backend(0), BackendState::up);
  EXPECT_EQ(edge.backend(1), BackendState::draining) << "what runs there goes on";
}

TEST(PlaneHealth, ABackendAtAPortOfNoPlaneIsNotConcerned) {
  Edge edge;
  edge.model.pools[0].backends[0].port = 8080;  // another program on that host
  edge.down("c", "l7"), edge.down("c", "dns");
  EXPECT_EQ(edge.backend(0), BackendState::up);
  edge.model.pools[0].backends[0].port = 8053;
  EXPECT_EQ(edge.backend(0), BackendState::down) << "HTTPDNS is the name server's";
}

TEST(PlaneHealth, AnOverrideCountsMoreThanAVerdict) {
  Edge edge;
  edge.down("a", "l4"), edge.down("b", "l4");
  edge.admin("a", "l4", OverrideState::up);
  EXPECT_TRUE(edge.snapshot()->vip_up[0]);
  EXPECT_EQ(edge.snapshot()->plane(0, PlaneKind::l4).why, "kept in service by ops: known");
  edge.admin("a", "l4", OverrideState::drained), edge.admin("b", "l4", OverrideState::down);
  EXPECT_FALSE(edge.snapshot()->vip_up[0]);
  EXPECT_TRUE(edge.snapshot()->vip_drained[0]) << "operators took all of them out";
}

// Both forwarders have a port in the network of the VIP's address, and "a" comes first.
struct SharedLink : Edge {
  const IpAddress address = *IpAddress::parse("192.0.2.100");
  SharedLink() {
    model.vips[0].addresses = {address};
    model.nodes[0].l4.ports.emplace_back().addresses = {{*IpAddress::parse("192.0.2.1"), 24}};
    model.nodes[1].l4.ports.emplace_back().addresses = {{*IpAddress::parse("192.0.2.2"), 24}};
  }
  std::string holder() const { return holder_name(*snapshot(), address); }
  bool second_stands_by() const { return stands_by(Forwarders(model), snapshot()->nodes, 1, 0, address); }
};

TEST(VipHolder, IsTheFirstForwarderOnTheLinkThatIsUp) {
  SharedLink edge;
  EXPECT_EQ(edge.holder(), "a");
  EXPECT_TRUE(edge.second_stands_by());
  EXPECT_FALSE(stands_by(Forwarders(edge.model), edge.snapshot()->nodes, 0, 0, edge.address));
  edge.down("b", "l4");
  EXPECT_EQ(edge.holder(), "a");
  edge.live_state = {};
  edge.down("a", "l4");
  EXPECT_EQ(edge.holder(), "b");
  edge.live_state = {};
  EXPECT_EQ(edge.holder(), "a") << "it takes the address back";
}

TEST(Forwarders, AreThoseOfTheSiteOfTheVipOrAll) {
  SharedLink edge;
  edge.model.nodes[2].l4.enabled = true;
  edge.model.nodes[2].site = 1;
  edge.model.vips = {{"eu", 0, {}}, {"us", 1, {}}, {"everywhere", kNone, {}}};
  edge.model.nodes.emplace_back().name = "no site";
  edge.model.nodes.back().l4.enabled = true;
  const Forwarders forwarders(edge.model);
  EXPECT_EQ(forwarders.of(0), (std::vector<uint32_t>{0, 1}));
  EXPECT_EQ(forwarders.of(1), (std::vector<uint32_t>{2}));
  EXPECT_EQ(forwarders.of(2), (std::vector<uint32_t>{0, 1, 2, 3}));
}

TEST(VipHolder, OneThatIsEndingHoldsUntilAnotherOneCan) {
  SharedLink edge;
  edge.down("a", "l4", true);
  EXPECT_EQ(edge.holder(), "b");
  edge.down("b", "l4");
  EXPECT_EQ(edge.holder(), "a");
  edge.down("a", "l4");
  EXPECT_EQ(edge.holder(), "a") << "if all are down, some one still answers";
}

TEST(VipHolder, FollowsTheOperator) {
  SharedLink edge;
  edge.admin("a", "l4", OverrideState::drained);
  EXPECT_EQ(edge.holder(), "b");
  edge.admin("a", "l4", OverrideState::up);
  edge.down("a", "l4");
  EXPECT_EQ(edge.holder(), "a");
}

TEST(VipHolder, NobodyHoldsAnAddressThatComesByRoutesOrIsOnOneLinkOnly) {
  SharedLink edge;
  edge.model.nodes[1].l4.ports[0].addresses = {{*IpAddress::parse("198.51.100.2"), 24}};
  EXPECT_EQ(edge.holder(), "");
  EXPECT_FALSE(edge.second_stands_by());
  edge.model.nodes[0].l4.ports[0].addresses = {{*IpAddress::parse("203.0.113.2"), 24}};
  EXPECT_EQ(edge.holder(), "");
  EXPECT_EQ(holder_name(*edge.snapshot(), *IpAddress::parse("10.1.1.1")), "") << "no VIP";
}

}  // namespace tidegate::plane_health_test
