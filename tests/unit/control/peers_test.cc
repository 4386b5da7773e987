// SPDX-License-Identifier: Apache-2.0
// Controls that use TLS between each other, and what they refuse to send in clear text.

#include "control/hosts/peers.h"

#include "tests/unit/control/host.h"
#include "tests/unit/core/made_identity.h"

namespace tidegate::testing::peers_test {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TlsPeers : public ::testing::Test {
 protected:
  void SetUp() override {
    give(leader, "IP:127.0.0.1");
    leader.start();
    follower.options.follow = leader.control->tcp_endpoint();
    follower.options.peer_ca_file = leader.options.tls_certificate_file;
  }
  static void give(Host& host, const std::string& names) {
    const TlsIdentity identity = make_identity("control", names);
    host.options.tls_certificate_file = host.directory.write("control.crt", identity.certificate_pem);
    host.options.tls_key_file = host.directory.write("control.key", identity.key_pem);
  }
  std::string refusal(const Host& host) {
    const Result<std::unique_ptr<Control>> started = Control::start(loop, host.options);
    return started ? "" : started.error().message;
  }
  // The reason why the follower cannot reach its leader.
  std::string trouble() {
    std::string told;
    EXPECT_TRUE(pump(loop, [&] {
      const nlohmann::json self = body_of(follower.call("GET", "/v1/node/status"));
      told = self.value("trouble", "");
      return told != "not connected yet";
    }));
    return told;
  }

  EventLoop loop;
  Host leader{loop, "box"};
  Host follower{loop, "other"};
};

TEST_F(TlsPeers, AFollowerTakesTheStateOverTlsAndTheLeaderAsksItTheSameWay) {
  give(follower, "IP:127.0.0.1");
  leader.stop();
  leader.options.peer_ca_file = follower.options.tls_certificate_file;
  leader.options.listen = follower.options.follow;
  leader.start();
  follower.start();
  std::string yaml = edge_yaml();
  yaml.replace(yaml.find("pools:"), 0,
               "  - {name: other, site: eu, management: \"" + follower.control->tcp_endpoint()->to_string() +
                   "\", l7: {workers: 1}}\n");
  ASSERT_EQ(leader.put_config(yaml).status, 200);
  ASSERT_TRUE(pump(loop, [&] { return follower.control->host_state().head() == leader.control->host_state().head(); }));
  const nlohmann::json nodes = body_of(leader.call("GET", "/v1/status"))["nodes"];
  ASSERT_EQ(nodes.size(), 2U);
  EXPECT_TRUE(nodes[1]["reachable"]) << nodes[1].dump();
  EXPECT_EQ(nodes[1]["role"], "replica");
}

TEST_F(TlsPeers, NothingIsTakenFromALeaderThatCannotShowWhoItIs) {
  const TlsIdentity stranger = make_identity("control", "IP:127.0.0.1");
  follower.options.peer_ca_file = follower.directory.write("stranger.crt", stranger.certificate_pem);
  follower.start();
  EXPECT_THAT(trouble(), HasSubstr("certificate verify failed"));
  follower.stop();

  leader.stop();
  give(leader, "IP:127.0.0.2");
  leader.options.listen = follower.options.follow;
  leader.start();
  follower.options.peer_ca_file = leader.options.tls_certificate_file;
  follower.start();
  EXPECT_THAT(trouble(), AllOf(HasSubstr("certificate verify failed"), HasSubstr("IP address mismatch")));
}

TEST_F(TlsPeers, APlainFollowerOrClientIsNotAnsweredByATlsListener) {
  follower.options.peer_ca_file.clear();
  follower.start();
  EXPECT_THAT(trouble(), HasSubstr("read "));
}

TEST_F(TlsPeers, NothingCrossesANetworkInClearUnlessThatIsAskedForByName) {
  Host open(loop, "open");
  for (const char* everywhere : {"0.0.0.0:0", "[::]:0"}) {
    open.options.listen = Endpoint::parse(everywhere);
    EXPECT_THAT(refusal(open), AllOf(HasSubstr("--tls-certificate"), HasSubstr("--insecure")));
  }
  open.options.insecure = true;
  EXPECT_EQ(refusal(open), "");
  open.options.insecure = false;
  give(open, "IP:127.0.0.1");
  EXPECT_EQ(refusal(open), "");
  open.options.follow = Endpoint::parse("192.0.2.1:9090");
  EXPECT_THAT(refusal(open), AllOf(HasSubstr("--peer-ca"), HasSubstr("--insecure")));
  open.options.peer_ca_file = open.options.tls_certificate_file;
  EXPECT_EQ(refusal(open), "");
  // A node that is asked for its status must not get the token.
  EXPECT_FALSE(Peers{}.target(*Endpoint::parse("192.0.2.1:9090")));
  EXPECT_TRUE(Peers{}.target(*Endpoint::parse("127.0.0.9:9090")));
  EXPECT_TRUE(Peers{}.target(*Endpoint::parse("[::1]:9090")));
}

TEST_F(TlsPeers, ACertificateIsReadAgainWhenAskedToAndKeptWhenTheNewOneIsFaulty) {
  give(leader, "IP:127.0.0.1");  // another certificate in the same files
  follower.start();
  EXPECT_THAT(trouble(), HasSubstr("certificate verify failed"));
  ASSERT_TRUE(leader.control->reload());
  leader.directory.write("control.key", "not a key");
  const Result<void> refused = leader.control->reload();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("private key: no readable"));
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  EXPECT_TRUE(pump(loop, [&] { return follower.control->host_state().head() == leader.control->host_state().head(); }));
}

TEST_F(TlsPeers, FaultyFilesAreNamedAtTheStart) {
  Host host(loop, "host");
  give(host, "IP:127.0.0.1");
  const ControlOptions good = host.options;
  host.options.tls_key_file = leader.options.tls_key_file;
  EXPECT_THAT(refusal(host), HasSubstr(good.tls_certificate_file));
  host.options.tls_key_file = host.directory / "missing.key";
  EXPECT_THAT(refusal(host), HasSubstr("missing.key: No such file"));
  host.options.tls_key_file.clear();
  EXPECT_THAT(refusal(host), HasSubstr("belong together"));
  host.options = good;
  host.options.peer_ca_file = host.directory / "missing.crt";
  EXPECT_THAT(refusal(host), HasSubstr("missing.crt: No such file"));
  host.options.peer_ca_file = host.directory.write("empty.crt", "");
  EXPECT_THAT(refusal(host), HasSubstr("empty.crt"));
}

}  // namespace tidegate::testing::peers_test
