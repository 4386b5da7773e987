// SPDX-License-Identifier: Apache-2.0
// Which addresses are announced, and that Debian's BIRD announces them. BIRD is a process of the test, with its own
// socket and no routes in the kernel.

#include "control/announce/route_announcer.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "control/announce/bird_client.h"
#include "control/announce/route_plan.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::announcer_test {

using ::testing::HasSubstr;

Model edge_of_two() {
  Model model;
  model.sites.resize(2);
  model.sites[0].name = "eu";
  model.sites[1].name = "us";
  model.nodes.resize(3);
  for (size_t n = 0; n < 3; ++n) {
    model.nodes[n].name = std::string("l4") + static_cast<char>('a' + n);
    model.nodes[n].site = n == 2 ? 1 : 0;
    model.nodes[n].l4.enabled = true;
    L4Port port;
    port.addresses.emplace_back(*IpAddress::parse("10.10.0." + std::to_string(n + 2)), 24);
    model.nodes[n].l4.ports.push_back(port);
  }
  model.vips.resize(2);
  model.vips[0] = {"web", 0, {*IpAddress::parse("192.0.2.1"), *IpAddress::parse("2001:db8::1")}};
  model.vips[1] = {"far", 1, {*IpAddress::parse("192.0.2.9")}};
  return model;
}

bool announces(const Model& model, const LiveState& live_state, const HealthVerdict& own) {
  const std::vector<AnnouncedAddress> plan = plan_announcements(model, live_state, "l4a", own);
  EXPECT_EQ(plan.size(), 2u) << "of its own site alone";
  EXPECT_EQ(plan[0].announced, plan[1].announced);
  EXPECT_EQ(plan[0].announced, plan[0].why.empty());
  return plan[0].announced;
}

const HealthVerdict kUp{true, "", 0, false}, kDown{false, "its process is gone", 0, false},
    kEnding{false, "it is ending", 0, true};

TEST(RoutePlan, FollowsTheForwarderAndTheOperators) {
  const Model model = edge_of_two();
  EXPECT_TRUE(announces(model, {}, kUp));
  EXPECT_FALSE(announces(model, {}, kDown));
  for (const OverrideState state : {OverrideState::drained, OverrideState::down}) {
    EXPECT_FALSE(announces(model, LiveState{0, {{"vip/web", {state, "", "", 0}}}, {}, {}}, kUp));
    EXPECT_FALSE(announces(model, LiveState{0, {{"plane/l4a/l4", {state, "", "", 0}}}, {}, {}}, kUp));
    EXPECT_TRUE(announces(model, LiveState{0, {{"plane/l4b/l4", {state, "", "", 0}}}, {}, {}}, kUp));
    EXPECT_TRUE(announces(model, LiveState{0, {{"vip/far", {state, "", "", 0}}}, {}, {}}, kUp));
  }
  EXPECT_TRUE(announces(model, LiveState{0, {{"plane/l4a/l4", {OverrideState::up, "", "", 0}}}, {}, {}}, kDown));
  EXPECT_FALSE(announces(model, LiveState{0, {{"site/eu", {OverrideState::down, "", "", 0}}}, {}, {}}, kUp));
  EXPECT_TRUE(announces(model, LiveState{0, {{"site/eu", {OverrideState::drained, "", "", 0}}}, {}, {}}, kUp))
      << "its clients may finish";
  EXPECT_TRUE(plan_announcements(model, {}, "unknown", kUp).empty());
}

TEST(RoutePlan, AForwarderThatIsEndingStaysUntilAnotherOneIsThere) {
  const Model model = edge_of_two();
  EXPECT_FALSE(announces(model, {}, kEnding));
  EXPECT_TRUE(announces(model, LiveState{0, {}, {{"plane/l4b/l4", kDown}}, {}}, kEnding));
  EXPECT_TRUE(announces(model, LiveState{0, {{"plane/l4b/l4", {OverrideState::drained, "", "", 0}}}, {}, {}}, kEnding));
  EXPECT_FALSE(announces(model, LiveState{0, {}, {{"plane/l4b/l4", kDown}}, {}}, kDown)) << "nobody serves";
}

TEST(RoutePlan, AnAddressOnTheLinkOfTwoForwardersIsAnnouncedByItsHolderAlone) {
  Model model = edge_of_two();
  model.vips[0].addresses = {*IpAddress::parse("10.10.0.100")};
  EXPECT_TRUE(plan_announcements(model, {}, "l4a", kUp)[0].announced);
  const std::vector<AnnouncedAddress> standby = plan_announcements(model, {}, "l4b", kUp);
  EXPECT_FALSE(standby[0].announced);
  EXPECT_EQ(standby[0].why, "the forwarder of node l4a holds it");
  const LiveState taken_over{0, {}, {{"plane/l4a/l4", kDown}}, {}};
  EXPECT_TRUE(plan_announcements(model, taken_over, "l4b", kUp)[0].announced);
  EXPECT_FALSE(plan_announcements(model, taken_over, "l4a", kUp)[0].announced);
}

TEST(RoutePlan, WritesAProtocolForEachAddress) {
  const std::vector<AnnouncedAddress> plan = plan_announcements(edge_of_two(), {}, "l4a", kUp);
  const std::string text = bird_file(plan);
  EXPECT_THAT(text, HasSubstr("protocol static tidegate_192_0_2_1 { ipv4; disabled no; route 192.0.2.1/32 blackhole "
                              "{ bgp_next_hop = 10.10.0.2; }; }\n"));
  EXPECT_THAT(text, HasSubstr("protocol static tidegate_20010db8000000000000000000000001 { ipv6; disabled no; "
                              "route 2001:db8::1/128 blackhole; }\n"));
}

// BIRD in the foreground, with one include.
class Bird {
 public:
  explicit Bird(const TemporaryDirectory& directory) : directory_(directory) {
    ::chmod((directory / "").c_str(), 0755);
    directory.write("bird.conf", "router id 192.0.2.200;\ninclude \"" + file() + "*\";\nprotocol device {}\n");
  }
  ~Bird() { kill(); }
  std::string socket() const { return directory_ / "bird.ctl"; }
  std::string file() const { return directory_ / "vips.conf"; }
  void start() {
    pid_ = ::fork();
    if (pid_ == 0) {
      const std::string log = directory_ / "bird.log", config = directory_ / "bird.conf", pid = directory_ / "bird.pid";
      if (std::freopen(log.c_str(), "a", stderr) == nullptr) ::_exit(126);
      ::execl("/usr/sbin/bird", "bird", "-f", "-c", config.c_str(), "-s", socket().c_str(), "-P", pid.c_str(), nullptr);
      ::_exit(127);
    }
    ASSERT_GT(pid_, 0);
  }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
    std::filesystem::remove(socket());
  }

 private:
  const TemporaryDirectory& directory_;
  pid_t pid_ = 0;
};

class AnnouncerTest : public ::testing::Test {
 protected:
  AnnouncerTest() {
    host.options.announce = true;
    host.options.bird_socket = bird.socket();
    host.options.announce_file = bird.file();
    l4.alive = alive("up");
  }
  // The answer of a plane that is never behind.
  static nlohmann::json alive(const std::string& state) {
    return {{"state", state}, {"version", 1'000}, {"words", 1'000}, {"why", state == "up" ? "" : "no port works"}};
  }
  void start() {
    ASSERT_NO_FATAL_FAILURE(host.start());
    const HttpResponse put = host.put_config(
        "sites: [{name: eu}]\nnodes: [{name: box, site: eu, l4: {ports: [{device: eth0, addresses: "
        "[10.10.0.2/24]}]}}]\n"
        "vips: [{name: web, site: eu, addresses: [192.0.2.1]}, {name: mail, site: eu, addresses: [192.0.2.2]}]\n");
    ASSERT_EQ(put.status, 200) << put.body;
  }
  // The routes that BIRD reports. Empty if it does not answer.
  std::string routes() {
    std::string said;
    bool done = false;
    BirdClient client(loop, bird.socket(), [] {});
    if (!client.connect()) return {};
    client.ask("show route", [&](const Result<std::string>& text) {
      said = text ? *text : "none: " + text.error().message;
      done = true;
    });
    pump(loop, [&] { return done; });
    return said;
  }
  bool has(const std::string& address) { return routes().find(address + "/32") != std::string::npos; }
  bool becomes(bool web, bool mail) {
    return pump(loop, [&] { return has("192.0.2.1") == web && has("192.0.2.2") == mail; });
  }

  EventLoop loop;
  TemporaryDirectory directory;
  Bird bird{directory};
  Host host{loop};
  FakePlane l4{loop, host.options.run_dir, "l4"};
};

TEST_F(AnnouncerTest, BirdHasARouteWhileTheForwarderServesAndTheOperatorLetsIt) {
  bird.start();
  start();
  ASSERT_TRUE(becomes(true, true));
  ASSERT_EQ(host.call_json("PUT", "/v1/admin/vip/web", {{"state", "drained"}}).status, 200);
  ASSERT_TRUE(becomes(false, true));
  ASSERT_EQ(host.call("DELETE", "/v1/admin/vip/web").status, 200);
  ASSERT_TRUE(becomes(true, true));
  l4.alive = alive("down");
  ASSERT_TRUE(becomes(false, false));
  l4.alive = alive("up");
  ASSERT_TRUE(becomes(true, true));
}

TEST_F(AnnouncerTest, ABirdThatStartsLaterOrAgainHasWhatWasDecided) {
  start();
  ASSERT_EQ(host.call_json("PUT", "/v1/admin/vip/web", {{"state", "down"}}).status, 200);
  ASSERT_TRUE(pump(loop, [&] { return std::filesystem::exists(bird.file()); }));
  bird.start();
  ASSERT_TRUE(becomes(false, true));
  bird.kill();
  ASSERT_EQ(host.call("DELETE", "/v1/admin/vip/web").status, 200);
  bird.start();
  ASSERT_TRUE(becomes(true, true));
  EXPECT_GT(metrics().counter("tidegate_control_bird_failures_total", "").value(), 0u);
}

TEST_F(AnnouncerTest, ABirdThatDoesNotIncludeTheFileIsNamed) {
  directory.write("bird.conf", "router id 192.0.2.200;\nprotocol device {}\n");
  bird.start();
  start();
  std::string trouble;
  ASSERT_TRUE(pump(loop, [&] {
    const nlohmann::json self = body_of(host.call("GET", "/v1/node/status"));
    trouble = self.contains("announce") ? self["announce"].value("trouble", "") : "";
    return trouble.find("does not include") != std::string::npos;
  })) << trouble;
  directory.write("bird.conf", "router id 192.0.2.200;\ninclude \"" + bird.file() + "*\";\nprotocol device {}\n");
  ASSERT_TRUE(becomes(true, true)) << "it is tried until it can be";
}

}  // namespace tidegate::testing::announcer_test
