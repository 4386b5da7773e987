// SPDX-License-Identifier: Apache-2.0
// Status: what the planes of this host and of other hosts have applied, how to wait for it, and who cannot be reached.

#include "control/observe/convergence.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::status_test {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json node_with(json planes, json unreachable = json::array()) {
  return {{"name", "n"}, {"reachable", true}, {"planes", std::move(planes)}, {"unreachable", std::move(unreachable)}};
}

json edge_of(std::initializer_list<json> nodes) { return {{"nodes", json::array_t(nodes)}}; }

TEST(Convergence, IsReachedWhenEveryReachablePlaneIsThere) {
  const json l7 = {{"plane", "l7"}, {"version", 3}, {"words", 5}, {"purge", 1}};
  const json dns = {{"plane", "dns"}, {"why", "connect refused"}};
  const json far = {{"name", "far"}, {"reachable", false}, {"why", "timed out"}};
  const json status = edge_of({node_with(json::array({l7}), json::array({dns})), far});
  const Convergence there = check_convergence(status, {3, 5, 1});
  EXPECT_TRUE(there.reached);
  EXPECT_THAT(there.unreachable, ElementsAre("n/dns: connect refused", "far: timed out"));
  const Convergence late = check_convergence(status, {4, 5, 1});
  EXPECT_FALSE(late.reached);
  EXPECT_FALSE(late.hopeless);
  EXPECT_THAT(late.missing, ElementsAre("n/l7: at version 3"));
}

TEST(Convergence, IsHopelessWhenAPlaneRefusedTheVersion) {
  const json l7 = {{"plane", "l7"}, {"version", 3}, {"refused", "port in use"}};
  const Convergence refused = check_convergence(edge_of({node_with(json::array({l7}))}), {4, 0, 0});
  EXPECT_TRUE(refused.hopeless);
  EXPECT_THAT(refused.missing, ElementsAre(HasSubstr("port in use")));
}

TEST(Convergence, APurgeConcernsTheCacheAlone) {
  const json dns = {{"plane", "dns"}, {"purge", 0}}, l7 = {{"plane", "l7"}, {"purge", 0}};
  EXPECT_TRUE(check_convergence(edge_of({node_with(json::array({dns}))}), {0, 0, 9}).reached);
  EXPECT_FALSE(check_convergence(edge_of({node_with(json::array({l7}))}), {0, 0, 9}).reached);
}

class StatusTest : public ::testing::Test {
 protected:
  void SetUp() override {
    host.start();
    ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  }
  EventLoop loop;
  Host host{loop};
};

TEST_F(StatusTest, ShowsAPlaneWithWhatItSaysAndAMissingOneWithWhy) {
  json status = body_of(host.call("GET", "/v1/status"));
  EXPECT_EQ(status["head"]["version"], 1);
  ASSERT_EQ(status["nodes"].size(), 1u);
  EXPECT_EQ(status["nodes"][0]["name"], "box");
  EXPECT_TRUE(status["nodes"][0]["planes"].empty());
  EXPECT_EQ(status["nodes"][0]["unreachable"][0]["plane"], "l7");
  EXPECT_FALSE(status["converged"]);

  FakePlane l7(loop, host.options.run_dir, "l7");
  l7.status["version"] = 1;
  l7.status["digest"] = "abc";
  status = body_of(host.call("GET", "/v1/status"));
  EXPECT_EQ(status["nodes"][0]["planes"][0]["digest"], "abc");
  EXPECT_TRUE(status["converged"]);
}

// A host's planes also use the only node, whatever the host's name is.
TEST(OwnNode, IsTheOnlyNodeUnlessTheOperatorToldAnother) {
  for (const bool told : {false, true}) {
    EventLoop loop;
    Host host(loop, "a-host-by-another-name");
    host.options.node_told = told;
    host.start();
    FakePlane l7(loop, host.options.run_dir, "l7");
    l7.status["version"] = 1;
    ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
    const json status = body_of(host.call("GET", "/v1/status"));
    EXPECT_EQ(status["asked"], told ? "a-host-by-another-name" : "box");
    EXPECT_EQ(status["nodes"][0]["reachable"], !told);
    EXPECT_EQ(status["converged"], !told);
  }
}

TEST_F(StatusTest, WaitingEndsWhenThePlaneHasApplied) {
  FakePlane l7(loop, host.options.run_dir, "l7");
  int asked = 0;
  l7.before_status = [&] {
    if (++asked == 3) l7.status["version"] = 1;
  };
  const json outcome = body_of(host.call("POST", "/v1/status/wait?version=1"));
  EXPECT_TRUE(outcome["converged"]) << outcome;
  EXPECT_EQ(asked, 3) << "it asks again until then, and not after";
  EXPECT_GT(outcome["waited_ms"].get<uint64_t>(), 0u);
}

TEST_F(StatusTest, WaitingEndsAtItsTimeAndSaysWhoIsLate) {
  FakePlane l7(loop, host.options.run_dir, "l7");
  const json outcome = body_of(host.call("POST", "/v1/status/wait?version=1&timeout=50"));
  EXPECT_FALSE(outcome["converged"]);
  EXPECT_THAT(outcome["missing"][0].get<std::string>(), HasSubstr("box/l7: at version 0"));
}

TEST_F(StatusTest, APurgeMayWaitForTheCaches) {
  FakePlane l7(loop, host.options.run_dir, "l7");
  l7.status["version"] = 1;
  Timer later(loop, [&] { l7.status["purge"] = 1; });
  later.arm_after_ms(20);
  const HttpResponse answer = host.call_json("POST", "/v1/purge?wait=true", {{"tag", "news"}, {"soft", true}});
  const json outcome = body_of(answer);
  EXPECT_EQ(outcome["sequence"], 1);
  EXPECT_TRUE(outcome["converged"]) << answer.body;
}

TEST_F(StatusTest, AHostThatIsGoneIsSaidAndDoesNotHang) {
  std::string yaml = edge_yaml();
  yaml.replace(yaml.find("pools:"), 0, "  - {name: far, site: eu, management: \"127.0.0.1:1\", l7: {workers: 1}}\n");
  ASSERT_EQ(host.put_config(yaml).status, 200);
  const json status = body_of(host.call("GET", "/v1/status"));
  ASSERT_EQ(status["nodes"].size(), 2u);
  EXPECT_FALSE(status["nodes"][1]["reachable"]);
  EXPECT_THAT(status["nodes"][1]["why"].get<std::string>(), HasSubstr("refused"));
}

TEST_F(StatusTest, HandsOnThePlanesOfThisHost) {
  FakePlane l7(loop, host.options.run_dir, "l7");
  l7.explained = {{"plane", "l7"}, {"route", "all"}};
  EXPECT_EQ(body_of(host.call("GET", "/v1/node/explain/l7?client=192.0.2.1&url=x"))["route"], "all");
  EXPECT_EQ(l7.asked, "/explain?client=192.0.2.1&url=x");
  EXPECT_EQ(host.call("GET", "/v1/node/metrics/l7").body, "plane_metric 1\n");
  EXPECT_EQ(host.call("GET", "/v1/node/explain/l9").status, 404);
  EXPECT_EQ(host.call("GET", "/v1/node/metrics/dns").status, 502);
}

}  // namespace tidegate::testing::status_test
