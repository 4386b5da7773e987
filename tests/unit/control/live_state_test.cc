// SPDX-License-Identifier: Apache-2.0
// LiveState: drain and undrain, and what /v1/health says about them.

#include "control/api/bundle.h"
#include "control/api/shapes.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::live_state_test {

using ::testing::HasSubstr;

class LiveStateTest : public ::testing::Test {
 protected:
  void SetUp() override {
    host.start();
    ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  }
  nlohmann::json backend(size_t index) {
    return body_of(host.call("GET", "/v1/health"))["pools"][0]["backends"][index];
  }

  EventLoop loop;
  Host host{loop};
};

TEST_F(LiveStateTest, ADrainedBackendIsDrainingWithItsReasonUntilItIsPutBack) {
  EXPECT_EQ(backend(0)["state"], "up");
  const HttpResponse drained =
      host.call_json("PUT", "/v1/admin/backend/origins/origin1", {{"state", "drained"}, {"note", "new disk"}});
  ASSERT_EQ(drained.status, 200) << drained.body;
  EXPECT_EQ(backend(0)["state"], "draining");
  EXPECT_THAT(backend(0)["why"].get<std::string>(), HasSubstr("new disk"));
  EXPECT_EQ(backend(1)["state"], "up");
  EXPECT_TRUE(body_of(host.call("GET", "/v1/admin"))["words"].contains("backend/origins/origin1"));
  EXPECT_EQ(host.call("DELETE", "/v1/admin/backend/origins/origin1").status, 200);
  EXPECT_EQ(backend(0)["state"], "up");
  EXPECT_EQ(host.call("DELETE", "/v1/admin/backend/origins/origin1").status, 404);
}

TEST_F(LiveStateTest, AQuotaIsChangedWithoutAVersionUntilItIsPutBack) {
  const std::string text =
      "policies:\n  - {name: calls, limit: {requests: 5, per: 1m}}\n  - {name: window, limit: {requests: 5, algorithm: "
      "sliding_window}}\n  - {name: small, compress: {}}\nroutes: [{name: all, path: \"/*\", status: 204, policies: "
      "[calls, window, small]}]\n";
  ASSERT_EQ(host.put_config(text).status, 200);
  const uint64_t version = host.control->host_state().head().version;
  const HttpResponse changed =
      host.call_json("PUT", "/v1/admin/limit/calls", {{"requests", 70}, {"burst", 9}, {"note", "campaign"}});
  ASSERT_EQ(changed.status, 200) << changed.body;
  EXPECT_EQ(host.control->host_state().head().version, version);
  const nlohmann::json word = body_of(host.call("GET", "/v1/admin"))["words"]["limit/calls"];
  EXPECT_EQ(word["state"], "quota");
  EXPECT_EQ(word["requests"], 70);
  EXPECT_EQ(word["burst"], 9);
  EXPECT_EQ(word["note"], "campaign");
  LiveState sent;
  sent.overrides["limit/calls"] = host.control->host_state().live_state()->overrides.at("limit/calls");
  const Result<LiveState> read = live_state_from_json(to_json(sent));
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(read->overrides.at("limit/calls").requests, 70u);
  EXPECT_EQ(read->overrides.at("limit/calls").burst, 9u);
  EXPECT_EQ(host.call("DELETE", "/v1/admin/limit/calls").status, 200);
  EXPECT_EQ(host.call("DELETE", "/v1/admin/limit/calls").status, 404);
  const auto refused = [&](const char* policy, const nlohmann::json& body) {
    const HttpResponse answer = host.call_json("PUT", std::string("/v1/admin/limit/") + policy, body);
    return std::to_string(answer.status) + " " + body_of(answer)["detail"].get<std::string>();
  };
  EXPECT_EQ(refused("call", {{"requests", 7}}), "404 the configuration has no policy 'call'; did you mean 'calls'?");
  EXPECT_EQ(refused("small", {{"requests", 7}}), "404 policy 'small' has no limit");
  EXPECT_EQ(refused("calls", nlohmann::json::object()), "400 \"requests\" is a number from 1 to 1000000000");
  EXPECT_EQ(refused("calls", {{"requests", -1}}), "400 \"requests\" is a number from 1 to 1000000000");
  EXPECT_EQ(refused("calls", {{"requests", 7}, {"burst", "9"}}), "400 \"burst\" is a number from 0 to 1000000000");
  EXPECT_EQ(refused("window", {{"requests", 7}, {"burst", 9}}),
            "400 \"burst\" belongs to a token bucket; this limit is a sliding window");
  EXPECT_THAT(refused("window", {{"requests", 3'000'000}}), HasSubstr("400 requests: requests of a sliding window is"));
  EXPECT_THAT(refused("calls", {{"requests", 1'000'000'000}}), HasSubstr("are too many; expected at most"));
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/pool/origins", {{"state", "quota"}}).status, 404);
  EXPECT_TRUE(host.control->host_state().live_state()->overrides.empty());
}

TEST_F(LiveStateTest, APoolAndASiteTakeWordsToo) {
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/pool/origins", {{"state", "down"}}).status, 200);
  EXPECT_EQ(backend(1)["state"], "down");
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/site/eu", {{"state", "drained"}}).status, 200);
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/site/mars", {{"state", "drained"}}).status, 404);
  EXPECT_EQ(host.control->host_state().live_state()->overrides.count("site/eu"), 1u);
}

TEST_F(LiveStateTest, AVipAndATargetOfASteerTakeWordsToo) {
  const std::string text =
      "sites: [{name: eu}]\nvips: [{name: a, site: eu, addresses: [192.0.2.1]}]\n"
      "zones: [{name: example.test, file: z}]\nsteers: [{name: www.example.test, targets: [{vip: a}, {alias: x.test, "
      "site: eu}],"
      " policy: failover}]\n";
  Bundle bundle{"edge.yaml", text, {}};
  bundle.files["z"] = std::make_shared<const std::string>("@ 60 IN SOA a b 1 2 3 4 5\n@ 60 IN NS a\n");
  const Headers headers = {{"Content-Type", kBundleType}, {"If-Match", "*"}};
  ASSERT_EQ(host.call("PUT", "/v1/config", encode_bundle(bundle), headers).status, 200);
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/vip/a", {{"state", "drained"}}).status, 200);
  EXPECT_FALSE(body_of(host.call("GET", "/v1/health"))["vips"][0]["up"].get<bool>());
  EXPECT_EQ(host.call("DELETE", "/v1/admin/vip/a").status, 200);
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/target/WWW.example.test./alias:x.test", {{"state", "drained"}}).status,
            200);
  EXPECT_EQ(host.control->host_state().live_state()->overrides.count("target/www.example.test/alias:x.test"), 1u);
  const auto detail = [&](const std::string& target) {
    const HttpResponse refused = host.call_json("PUT", "/v1/admin/" + target, {{"state", "drained"}});
    EXPECT_EQ(refused.status, 404);
    return body_of(refused)["detail"].get<std::string>();
  };
  EXPECT_EQ(detail("vip/b"), "the configuration has no vip 'b'; did you mean 'a'?");
  EXPECT_EQ(detail("target/www.example.test/vip:b"),
            "steer 'www.example.test' has no target 'vip:b'; its targets are vip:a, alias:x.test");
  EXPECT_THAT(detail("target/wwv.example.test/vip:a"), HasSubstr("has no steer 'wwv.example.test.'"));
}

TEST_F(LiveStateTest, AWrongNameIsAnsweredWithTheNearestOne) {
  const auto detail = [&](const std::string& target) {
    const HttpResponse refused = host.call_json("PUT", "/v1/admin/" + target, {{"state", "drained"}});
    EXPECT_EQ(refused.status, 404);
    return body_of(refused)["detail"].get<std::string>();
  };
  EXPECT_EQ(detail("backend/origins/orgin1"), "pool 'origins' has no backend 'orgin1'; did you mean 'origin1'?");
  EXPECT_EQ(detail("backend/orgins/origin1"), "the configuration has no pool 'orgins'; did you mean 'origins'?");
  EXPECT_EQ(detail("pool/orgins"), "the configuration has no pool 'orgins'; did you mean 'origins'?");
  EXPECT_EQ(detail("site/mars"), "the configuration has no site 'mars'");
}

TEST_F(LiveStateTest, ANoteHasNoControlCharacters) {
  for (const std::string& note : {std::string("\x1b]0;forged\a"), std::string("a\0b", 3)}) {
    const auto answer =
        host.call_json("PUT", "/v1/admin/backend/origins/origin1", {{"state", "drained"}, {"note", note}});
    EXPECT_EQ(answer.status, 400);
  }
}

TEST_F(LiveStateTest, ADryRunOfADrainChangesNothing) {
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/pool/origins?dry_run=true", {{"state", "down"}}).status, 200);
  EXPECT_TRUE(host.control->host_state().live_state()->overrides.empty());
}

TEST_F(LiveStateTest, AWordSurvivesARestartAndANewVersion) {
  ASSERT_EQ(host.call_json("PUT", "/v1/admin/backend/origins/origin1", {{"state", "drained"}}).status, 200);
  host.stop();
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml("7")).status, 200);
  EXPECT_EQ(backend(0)["state"], "draining");
}

}  // namespace tidegate::testing::live_state_test
