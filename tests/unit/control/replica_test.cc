// SPDX-License-Identifier: Apache-2.0
// Replication: one control takes over another's state, keeps it when the leader dies, and catches up when the leader is
// back.

#include "control/bundle.h"
#include "control/replica_source.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing {
namespace {

using ::testing::HasSubstr;

class ReplicaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    leader.start();
    leader.options.listen = leader.control->tcp_endpoint();  // to get the same port after a restart
    follower.options.follow = leader.options.listen;
  }
  bool caught_up() {
    return pump(loop, [&] { return follower.control->host_state().head() == leader.control->host_state().head(); });
  }
  void restart_leader() {
    leader.stop();
    leader.start();
  }

  EventLoop loop;
  Host leader{loop, "box"};
  Host follower{loop, "other"};
};

TEST_F(ReplicaTest, TakesOverWhatWasThereAndWhatComes) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  ASSERT_EQ(leader.call_json("PUT", "/v1/admin/pool/origins", {{"state", "drained"}, {"note", "kept"}}).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  ASSERT_EQ(leader.put_config(edge_yaml("7")).status, 200);
  ASSERT_EQ(leader.call_json("POST", "/v1/purge", {{"tag", "news"}}).status, 200);
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(follower.control->host_state().manifest().digest, leader.control->host_state().manifest().digest);
  EXPECT_EQ(follower.control->host_state().live_state()->overrides.at("pool/origins").note, "kept");
  EXPECT_EQ(follower.control->host_state().model()->pools[0].backends[0].weight, 7u);
}

TEST_F(ReplicaTest, RefusesWritesAndNamesItsLeader) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  const HttpResponse refused = follower.put_config(edge_yaml("7"));
  EXPECT_EQ(refused.status, 421);
  EXPECT_THAT(refused.body, HasSubstr(leader.options.listen->to_string()));
  EXPECT_EQ(follower.call_json("POST", "/v1/purge", {{"all", true}}).status, 421);
  EXPECT_EQ(follower.call("GET", "/v1/config").status, 200);
}

TEST_F(ReplicaTest, KeepsItsStateWithoutTheLeaderAndCatchesUpAfterwards) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  leader.stop();
  follower.stop();
  follower.start();
  EXPECT_EQ(follower.control->host_state().head().version, 1u);
  EXPECT_EQ(follower.call("GET", "/v1/config").status, 200);
  leader.start();
  ASSERT_EQ(leader.put_config(edge_yaml("8")).status, 200);
  ASSERT_EQ(leader.put_config(edge_yaml("9")).status, 200);
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(follower.control->host_state().model()->pools[0].backends[0].weight, 9u);
}

TEST_F(ReplicaTest, ReconnectsAfterTheLeaderRestarts) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  restart_leader();
  ASSERT_EQ(leader.put_config(edge_yaml("8")).status, 200);
  EXPECT_TRUE(caught_up());
}

TEST_F(ReplicaTest, ALargeFileComesByItsHash) {
  Bundle bundle;
  bundle.file = "edge.yaml";
  bundle.text = edge_yaml("100", "zones:\n  - {name: example.test, file: big.zone}\n");
  std::string zone = "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\n";
  for (int i = 0; zone.size() < ReplicaSource::kMaxInlineBytes + 1000; ++i)
    zone += "h" + std::to_string(i) + " IN TXT \"" + std::string(200, 'x') + "\"\n";
  bundle.files["big.zone"] = std::make_shared<const std::string>(zone);
  const HttpResponse put =
      leader.call("PUT", "/v1/config", encode_bundle(bundle), {{"Content-Type", kBundleType}, {"If-Match", "*"}});
  ASSERT_EQ(put.status, 200) << put.body;
  follower.start();
  ASSERT_TRUE(caught_up());
  std::string error;
  EXPECT_EQ(*files_of(follower.control->host_state())("big.zone", error), zone);
}

TEST_F(ReplicaTest, AWrongTokenLeavesTheStateAloneAndSaysWhy) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  follower.options.peer_token_file = follower.directory.write("peer", "not-the-right-token-1\n");
  follower.start();
  ASSERT_TRUE(pump(loop, [&] {
    return body_of(follower.call("GET", "/v1/node/status")).value("trouble", "").find("401") != std::string::npos;
  }));
  EXPECT_EQ(follower.control->host_state().head().version, 0u);
}

TEST_F(ReplicaTest, ANewTokenIsPresentedWithoutARestart) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  follower.options.peer_token_file = follower.directory.write("peer", std::string(kReplicaToken) + "\n");
  follower.start();
  ASSERT_TRUE(caught_up());
  leader.directory.write("tokens", "replica a-brand-new-token-99\n");
  restart_leader();
  ASSERT_TRUE(pump(loop, [&] {
    return body_of(follower.call("GET", "/v1/node/status")).value("trouble", "").find("401") != std::string::npos;
  }));
  follower.directory.write("peer", "\n");
  EXPECT_FALSE(follower.control->reload()) << "the token of before stands";
  follower.directory.write("peer", "a-brand-new-token-99\n");
  ASSERT_TRUE(follower.control->reload());
  ASSERT_EQ(leader.put_config(edge_yaml("7")).status, 200);
  EXPECT_TRUE(caught_up());
}

TEST_F(ReplicaTest, ALeaderThatLostItsStateDoesNotTakeOurs) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  ASSERT_EQ(leader.put_config(edge_yaml("7")).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  leader.stop();
  std::filesystem::remove_all(leader.options.state_dir);
  leader.start();
  ASSERT_EQ(leader.put_config(edge_yaml("55")).status, 200);
  ASSERT_TRUE(pump(loop, [&] {
    return body_of(follower.call("GET", "/v1/node/status")).value("trouble", "").find("behind ours") !=
           std::string::npos;
  }));
  EXPECT_EQ(follower.control->host_state().model()->pools[0].backends[0].weight, 7u);
}

TEST_F(ReplicaTest, TheLeaderSeesTheOtherHostsPlanes) {
  std::string yaml = edge_yaml();
  yaml.replace(yaml.find("pools:"), 0, "  - {name: other, site: eu, management: \"127.0.0.1:9\", l7: {workers: 1}}\n");
  follower.start();
  yaml.replace(yaml.find("127.0.0.1:9"), 11, follower.control->tcp_endpoint()->to_string());
  ASSERT_EQ(leader.put_config(yaml).status, 200);
  ASSERT_TRUE(caught_up());
  FakePlane l7(loop, follower.options.run_dir, "l7");
  l7.status["version"] = 1;
  const nlohmann::json node = body_of(leader.call("GET", "/v1/status"))["nodes"][1];
  EXPECT_TRUE(node["reachable"]) << node;
  EXPECT_EQ(node["role"], "replica");
  EXPECT_EQ(node["planes"][0]["version"], 1);
}

}  // namespace
}  // namespace tidegate::testing
