// SPDX-License-Identifier: Apache-2.0
// Planes as health: a leading control and the control of another host in one process, over their real sockets. The
// "planes" are admin sockets that answer as the test says, and TCP ports at which clients are served.

#include "control/health/plane_watch.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/probe.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

#include <sys/socket.h>

#include "control/health/verdict_writer.h"
#include "control/limits.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::plane_watch_test {

using ::testing::HasSubstr;

constexpr const char* kClients = "127.0.0.2";  // no address of an interface, so it may belong to another host

// A port at which clients are served, until it is destroyed.
class ClientPort {
 public:
  ClientPort() : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse(std::string(kClients) + ":0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(fd_.get(), 1'024), 0);
    length = sizeof address;
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    port = Endpoint::from(address).port;
  }
  uint16_t port = 0;

 private:
  UniqueFd fd_;
};

nlohmann::json alive(const char* state = "up", const char* why = "") {
  return {{"state", state}, {"version", 1'000}, {"words", 1'000'000}, {"why", why}};
}

class PlaneWatchTest : public ::testing::Test {
 protected:
  // "box" leads and runs a proxy. "other" has the forwarder of the site, and a VIP leads to the proxy.
  void start() {
    start_controls();
    forwarder->alive = alive();
    ASSERT_NO_FATAL_FAILURE(commit(R"(, l4: {ports: [{device: eth0, addresses: [192.0.2.2/24]}]}}
vips: [{name: vip, site: eu, addresses: [192.0.2.1]}]
pools: [{name: web, backends: [{name: box, node: box, addresses: [192.0.2.3]}]}]
listeners: [{name: http, bind: ['127.0.0.1:8000']}]
services: [{name: http, vip: vip, port: 8000, pool: web}]
)"));
    ASSERT_TRUE(pump(loop, [&] { return proxy->times_asked > 1 && forwarder->times_asked > 1; }));
  }
  // "other" has a proxy that clients reach at `port`.
  void start_proxies(uint16_t port) {
    start_controls();
    const std::string text = std::to_string(port);
    ASSERT_NO_FATAL_FAILURE(
        commit(", l7: {workers: 1}}\npools: [{name: web, backends: [{name: other, node: other, addresses: [" +
               std::string(kClients) + "], port: " + text + "}]}]\nlisteners: [{name: http, bind: ['127.0.0.1:" + text +
               "']}]\n"));
    second_proxy->alive = alive();
    ASSERT_TRUE(pump(loop, [&] { return proxy->times_asked > 1 && second_proxy->times_asked > 1; }));
  }
  void start_controls() {
    leader.start();
    leader.options.listen = leader.control->tcp_endpoint();
    follower.options.follow = leader.options.listen;
    follower.start();
    follower.options.listen = follower.control->tcp_endpoint();
    proxy->alive = alive();
  }
  // `rest` continues in the middle of the node "other".
  void commit(const std::string& rest) {
    const HttpResponse put = leader.put_config(
        "sites: [{name: eu, location: {latitude: 50, longitude: 8}}]\nroutes: [{name: all, path: '/*', status: "
        "200}]\nnodes:\n  - {name: box, site: eu, management: '" +
        leader.options.listen->to_string() + "', l7: {workers: 1}}\n  - {name: other, site: eu, management: '" +
        follower.options.listen->to_string() + "'" + rest);
    ASSERT_EQ(put.status, 200) << put.body;
  }
  nlohmann::json plane(const std::string& node) {
    const nlohmann::json health = body_of(leader.call("GET", "/v1/health"));
    for (const nlohmann::json& each : health["planes"]) {
      if (each["node"] == node) return each;
    }
    return {};
  }
  bool vip_up() { return body_of(leader.call("GET", "/v1/health"))["vips"][0]["up"]; }
  bool comes_to(const std::string& node, const std::string& state) {
    return pump(loop, [&] { return plane(node)["state"] == state; });
  }
  uint64_t words() { return leader.control->host_state().head().live_state; }

  EventLoop loop;
  Host leader{loop, "box"}, follower{loop, "other"};
  std::unique_ptr<FakePlane> proxy = std::make_unique<FakePlane>(loop, leader.options.run_dir, "l7");
  std::unique_ptr<FakePlane> second_proxy = std::make_unique<FakePlane>(loop, follower.options.run_dir, "l7");
  std::unique_ptr<FakePlane> forwarder = std::make_unique<FakePlane>(loop, follower.options.run_dir, "l4");
};

TEST_F(PlaneWatchTest, APlaneOfThisHostThatEndsIsDownAndComesBack) {
  ASSERT_NO_FATAL_FAILURE(start());
  const uint64_t before = words();
  proxy.reset();
  ASSERT_TRUE(comes_to("box", "down"));
  EXPECT_EQ(plane("box")["why"], "its process is gone");
  const nlohmann::json backend = body_of(leader.call("GET", "/v1/health"))["pools"][0]["backends"][0];
  EXPECT_EQ(backend["state"], "down") << "the backend that this proxy is";
  EXPECT_EQ(backend["why"], "l7 of node box: its process is gone");
  EXPECT_FALSE(vip_up());
  EXPECT_THAT(leader.call("GET", "/metrics").body, HasSubstr("tidegate_control_plane_up{node=\"box\",plane=\"l7\"} 0"));
  proxy = std::make_unique<FakePlane>(loop, leader.options.run_dir, "l7");
  proxy->alive = alive();
  ASSERT_TRUE(comes_to("box", "up"));
  EXPECT_TRUE(vip_up());
  EXPECT_EQ(words(), before + 2) << "one write for each change";
}

TEST_F(PlaneWatchTest, AForwarderOfAnotherHostThatEndsTakesItsVipDown) {
  ASSERT_NO_FATAL_FAILURE(start());
  forwarder.reset();
  ASSERT_TRUE(comes_to("other", "down"));
  EXPECT_FALSE(vip_up());
  EXPECT_THAT(std::string(body_of(leader.call("GET", "/v1/health"))["vips"][0]["why"]),
              HasSubstr("no forwarder of the vip is up: l4 of node other: its process is gone"));
  ASSERT_TRUE(pump(loop, [&] { return follower.control->host_state().head().live_state == words(); }));
  EXPECT_EQ(follower.control->host_state().snapshot()->vip_up[0], false) << "every plane decides alike";
}

TEST_F(PlaneWatchTest, PlanesAreToldWhetherTheirControlHearsALeader) {
  ASSERT_NO_FATAL_FAILURE(start());
  ASSERT_TRUE(pump(loop, [&] { return forwarder->heard == "yes"; }));
  EXPECT_EQ(proxy->heard, "yes") << "its control is the leader";
  leader.stop();
  ASSERT_TRUE(pump(loop, [&] { return forwarder->heard == "no"; }));
  leader.start();
  ASSERT_TRUE(pump(loop, [&] { return forwarder->heard == "yes"; }));
}

TEST_F(PlaneWatchTest, AProcessThatAnotherOneFollowsSaysNothingAboutThePlane) {
  ASSERT_NO_FATAL_FAILURE(start());
  const nlohmann::json before = plane("box");
  proxy->alive = alive("followed", "another process serves in its place");
  const int asked = proxy->times_asked;
  ASSERT_TRUE(pump(loop, [&] { return proxy->times_asked > asked + 2; }));
  EXPECT_EQ(plane("box"), before);
}

TEST_F(PlaneWatchTest, APlaneThatTakesNoNewWorkDrains) {
  ASSERT_NO_FATAL_FAILURE(start());
  proxy->alive = alive("draining", "it is ending");
  ASSERT_TRUE(comes_to("box", "draining"));
  EXPECT_EQ(plane("box")["why"], "it is ending");
  EXPECT_TRUE(plane("box")["health"]["drains"]);
  EXPECT_EQ(body_of(leader.call("GET", "/v1/health"))["pools"][0]["backends"][0]["state"], "draining");
}

// The twin of a dead host: its control has ended and it reports nothing, but clients are served.
TEST_F(PlaneWatchTest, ASilentHostWhoseClientsAreServedStaysUpAndOneWhoseClientsAreNotIsDown) {
  auto port = std::make_unique<ClientPort>();
  ASSERT_NO_FATAL_FAILURE(start_proxies(port->port));
  const uint64_t before = words();
  Counter& served = metrics().counter("tidegate_control_plane_probes_total", "", {{"result", "success"}});
  const uint64_t served_before = served.value();
  follower.stop();
  ASSERT_TRUE(pump(loop, [&] { return served.value() > served_before + 4; }));
  EXPECT_EQ(words(), before) << "nothing was written";
  port.reset();
  ASSERT_TRUE(comes_to("other", "down"));
  EXPECT_THAT(std::string(plane("other")["why"]),
              HasSubstr("its host is silent, and clients get no answer: 127.0.0.2"));
  EXPECT_EQ(body_of(leader.call("GET", "/v1/health"))["pools"][0]["up"], false);
  follower.start();
  ASSERT_TRUE(comes_to("other", "up")) << "its control says so";
}

TEST_F(PlaneWatchTest, AnOperatorsWordCountsMoreThanWhatControlFinds) {
  ASSERT_NO_FATAL_FAILURE(start());
  const auto say = [&](const char* state) {
    return leader.call_json("PUT", "/v1/admin/plane/other/l4", {{"state", state}, {"note", "known"}}).status;
  };
  EXPECT_EQ(say("up"), 200);
  forwarder.reset();
  ASSERT_TRUE(pump(loop, [&] { return plane("other").contains("health"); }));
  EXPECT_EQ(plane("other")["state"], "up");
  EXPECT_THAT(std::string(plane("other")["why"]), HasSubstr("kept in service by"));
  EXPECT_TRUE(vip_up());
  EXPECT_EQ(say("drained"), 200);
  EXPECT_EQ(plane("other")["state"], "draining");
  EXPECT_TRUE(leader.control->host_state().snapshot()->vip_drained[0]) << "not even a name that fails open leads there";
  EXPECT_EQ(leader.call("DELETE", "/v1/admin/plane/other/l4").status, 200);
  EXPECT_EQ(plane("other")["state"], "down");
}

TEST_F(PlaneWatchTest, RefusesWordsOnPlanesThatDoNotExistAndUpForAnythingElse) {
  ASSERT_NO_FATAL_FAILURE(start());
  const HttpResponse no_plane = leader.call_json("PUT", "/v1/admin/plane/other/l7", {{"state", "up"}});
  EXPECT_EQ(no_plane.status, 404);
  EXPECT_THAT(no_plane.body, HasSubstr("its planes are l4"));
  EXPECT_EQ(leader.call_json("PUT", "/v1/admin/plane/elsewhere/l4", {{"state", "up"}}).status, 404);
  EXPECT_EQ(leader.call_json("PUT", "/v1/admin/plane/other/l4", {{"state", "perhaps"}}).status, 400);
  EXPECT_EQ(leader.call_json("PUT", "/v1/admin/vip/vip", {{"state", "up"}}).status, 400);
}

TEST_F(PlaneWatchTest, VerdictsLeaveWithTheirNode) {
  ASSERT_NO_FATAL_FAILURE(start());
  proxy.reset();
  ASSERT_TRUE(comes_to("box", "down"));
  ASSERT_EQ(leader.put_config("nodes: [{name: else}]\nroutes: [{name: all, path: '/*', status: 200}]\n").status, 200);
  EXPECT_TRUE(pump(loop, [&] { return leader.control->host_state().live_state()->health.empty(); }));
}

TEST(VerdictWriter, WritesAFlapOfManyBackendsInFewCommits) {
  TemporaryDirectory directory;
  EventLoop loop;
  Result<std::unique_ptr<HostState>> state = HostState::open(directory / "state", 10, "");
  ASSERT_TRUE(state) << state.error().message;
  VerdictWriter writer(loop, **state);
  const uint64_t before = (*state)->head().live_state;
  const uint64_t began_ns = monotonic_ns();
  for (uint64_t turn = 0; turn < 3 * kVerdictCommitBurst; ++turn) {
    for (int backend = 0; backend < 100; ++backend) {
      writer.note("backend/web/" + std::to_string(backend), HealthVerdict{turn % 2 == 0, "", turn + 1});
    }
    const uint64_t turn_ns = monotonic_ns();
    pump(loop, [&] { return monotonic_ns() > turn_ns + 4 * kNsPerMs; });
  }
  ASSERT_TRUE(pump(loop, [&] { return writer.pending().empty(); }));
  EXPECT_EQ((*state)->live_state()->health.at("backend/web/7").since_ns, 3 * kVerdictCommitBurst) << "the last word";
  const uint64_t seconds = (monotonic_ns() - began_ns) / kNsPerS + 1;
  EXPECT_LE((*state)->head().live_state - before, kVerdictCommitBurst + seconds * kVerdictCommitsPerS);
}

TEST(ProbesOf, AVipThatOneOfSeveralForwardersHoldsSaysSomethingAboutItsHolderAlone) {
  Model model;
  for (const char* name : {"a", "b"}) {
    Node& node = model.nodes.emplace_back();
    node.name = name;
    node.l4.enabled = true;
    node.l4.ports.emplace_back().addresses = {{*IpAddress::parse("192.0.2.1"), 24}};
  }
  model.vips = {{"shared", kNone, {*IpAddress::parse("192.0.2.100")}},
                {"routed", kNone, {*IpAddress::parse("198.51.100.1")}}};
  model.pools.emplace_back();
  for (uint32_t vip = 0; vip < 2; ++vip) {
    Service& service = model.services.emplace_back();
    service.vip = vip;
    service.port = 80;
    service.pool = 0;
  }
  const auto probed = [&](const std::vector<NodeStatus>& planes, uint32_t node) {
    std::vector<std::string> told;
    for (const ProbeTarget& target : probes_of(model, planes, node, PlaneKind::l4)) {
      const char* how = target.echo ? "echo " : target.type == ProbeType::tcp ? "tcp " : "dns ";
      told.push_back(how + (target.echo ? target.endpoint.address.to_string() : target.endpoint.to_string()));
    }
    return told;
  };
  using Told = std::vector<std::string>;
  EXPECT_EQ(probed({}, 0), Told{"tcp 192.0.2.100:80"}) << "the other one may answer at the routed VIP";
  EXPECT_EQ(probed({}, 1), Told{});
  std::vector<NodeStatus> planes(2);
  planes[0].planes[static_cast<size_t>(PlaneKind::l4)].state = BackendState::down;
  EXPECT_EQ(probed(planes, 0), Told{}) << "it would be the other one that answers";
  EXPECT_EQ(probed(planes, 1), Told{"tcp 192.0.2.100:80"});
  for (Service& service : model.services) service.protocol = Protocol::udp;
  EXPECT_EQ(probed({}, 0), Told{"echo 192.0.2.100"}) << "it has UDP services alone";
  EXPECT_EQ(probed(planes, 0), Told{});
  EXPECT_EQ(probed(planes, 1), Told{"echo 192.0.2.100"});
  model.nodes.pop_back();
  EXPECT_EQ(probed({}, 0), (Told{"echo 192.0.2.100", "echo 198.51.100.1"})) << "nobody shares anything";
  model.probes.emplace_back().type = ProbeType::dns;
  model.pools[0].probe = 0;
  EXPECT_EQ(probed({}, 0), (Told{"dns 192.0.2.100:80", "dns 198.51.100.1:80"})) << "as the backends are asked";
  model.services[0].protocol = Protocol::tcp;
  EXPECT_EQ(probed({}, 0), Told{"tcp 192.0.2.100:80"});
}

// Whether this process may open the socket is a setting of the host.
TEST(EchoProbe, IsAnsweredByTheAddressOrSaysThatItCouldNotLook) {
  EventLoop loop;
  for (const char* address : {"127.0.0.1", "::1"}) {
    ProbeTarget target;
    target.echo = true;
    target.endpoint.address = *IpAddress::parse(address);
    target.timeout_ms = 2'000;
    std::optional<ProbeResult> result;
    const auto attempt = start_probe(loop, target, [&](const ProbeResult& got) { result = got; });
    ASSERT_TRUE(pump(loop, [&] { return result.has_value(); }));
    EXPECT_TRUE(result->success || !result->looked) << result->reason;
  }
}

}  // namespace tidegate::testing::plane_watch_test
