// SPDX-License-Identifier: Apache-2.0
// Replication: one control takes over another's state, keeps it when the leader dies, and catches up when the leader is
// back.

#include <fmt/format.h>

#include <map>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/pool.h"
#include "conf/model/zone.h"
#include "control/api/bundle.h"
#include "control/hosts/replica_source.h"
#include "core/crypto.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::replica_test {

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

TEST_F(ReplicaTest, TakesOverOrderedCertificatesWithTheirKeysAndLosesNoneByARollback) {
  const std::string key = "-----BEGIN PRIVATE KEY-----\nnobody's\n-----END PRIVATE KEY-----\n";
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  IssuedCertificate issued;
  issued.names = {"a.test"};
  issued.not_after_s = 4'000'000'000;
  issued.certificate_hash = sha256_hex("chain");
  issued.key_hash = sha256_hex(key);
  CertificateChanges changes;
  changes.certificates.emplace_back("web", issued);
  changes.objects = {"chain", key};
  ASSERT_TRUE(leader.control->host_state().set_certificates(changes));
  ASSERT_TRUE(caught_up());
  ASSERT_EQ(leader.put_config(edge_yaml("7")).status, 200);
  ASSERT_EQ(leader.call_json("POST", "/v1/rollback", {{"to", 1}}).status, 200);
  ASSERT_TRUE(caught_up());
  const LiveState& there = *follower.control->host_state().live_state();
  EXPECT_EQ(there.certificates.at("web").names, issued.names);
  EXPECT_EQ(follower.control->host_state().store().object(issued.key_hash).value(), key);
  EXPECT_EQ(follower.control->host_state().store().object(issued.certificate_hash).value(), "chain");
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

// Between a follower and its leader: it counts what is said, and can be a leader of an earlier release.
class Relay {
 public:
  Relay(EventLoop& loop, const Endpoint& leader)
      : loop_(loop), server_(loop, [this](const HttpExchangePtr& exchange) { pass_on(exchange); }) {
    leader_.endpoint = leader;
    EXPECT_TRUE(server_.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
  }
  ~Relay() {
    for (auto& [id, call] : calls_) call.reset();
  }
  Endpoint endpoint() const { return server_.tcp_endpoint(); }

  bool earlier_release = false;
  std::function<void(std::string& answer)> falsify;  // changes an answer with many objects
  int calls_for_many = 0, calls_for_one = 0, streams = 0;
  size_t streamed = 0;  // bytes of streams, without what is said all the time

 private:
  void pass_on(const HttpExchangePtr& exchange) {
    const HttpRequest& asked = exchange->request();
    HttpClientRequest request;
    request.method = asked.method;
    request.target = asked.target;
    request.host = "leader";
    request.body = asked.body;
    for (const auto& [name, value] : asked.headers) {
      const bool passes =
          name == "authorization" || name == "content-type" || (name == "tidegate-replica" && !earlier_release);
      if (passes) request.headers.emplace_back(name, value);
    }
    const uint64_t id = next_++;
    if (asked.path == "/v1/replica") {
      ++streams;
      request.timeout_ms = 0;
      exchange->begin_stream(200, {{"Content-Type", "application/x-ndjson"}});
      calls_[id] = http_stream(
          loop_, leader_, std::move(request),
          [this, exchange](std::string_view bytes) {
            if (bytes.find("\"alive\"") == std::string_view::npos) streamed += bytes.size();
            exchange->write(bytes);
          },
          [exchange](const Result<HttpResponse>&) { exchange->end_stream(); });
      exchange->on_close([this, id] { calls_.erase(id); });
      return;
    }
    const bool many = asked.path == "/v1/objects";
    calls_for_many += many ? 1 : 0;
    calls_for_one += asked.path.starts_with("/v1/objects/") ? 1 : 0;
    if (many && earlier_release)
      return exchange->respond(HttpResponse::problem(404, "Not Found", "there is no such path"));
    calls_[id] = http_call(loop_, leader_, std::move(request), [this, exchange, many](Result<HttpResponse> response) {
      if (!response) return exchange->respond(HttpResponse::problem(502, "", response.error().message));
      if (many && falsify) falsify(response->body);
      exchange->respond({response->status, {}, std::move(response->body)});
    });
  }

  EventLoop& loop_;
  HttpTarget leader_;
  std::map<uint64_t, std::unique_ptr<HttpCall>> calls_;
  uint64_t next_ = 0;
  HttpServer server_;
};

// `bytes` make a route long: 200 of 2,000 bytes are more than a line of the stream takes.
std::string with_routes(int count, const char* status = "404", size_t bytes = 2'000) {
  std::string yaml = edge_yaml();
  for (int i = 0; i < count; ++i) {
    yaml += fmt::format("  - {{name: r{0}, path: /r/{0}, status: {1}, response_headers: {{X-Long: {2}}}}}\n", i, status,
                        std::string(bytes, 'x'));
  }
  return yaml;
}

class RelayedReplicaTest : public ReplicaTest {
 protected:
  void SetUp() override {
    ReplicaTest::SetUp();
    relay.emplace(loop, *leader.options.listen);
    follower.options.follow = relay->endpoint();
  }
  void TearDown() override {
    follower.stop();
    relay.reset();
  }
  std::string trouble() { return body_of(follower.call("GET", "/v1/node/status")).value("trouble", ""); }
  void follow_many_objects(int count, size_t bytes, size_t streamed_at_most);
  void follow_versions_while_one_is_fetched(int count);

  std::optional<Relay> relay;
};

class LongRelayedReplicaTest : public RelayedReplicaTest {};

void RelayedReplicaTest::follow_many_objects(int count, size_t bytes, size_t streamed_at_most) {
  ASSERT_EQ(leader.put_config(with_routes(count, "404", bytes)).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  EXPECT_GE(relay->calls_for_many, 1);
  EXPECT_LE(relay->calls_for_many, 2);
  relay->streamed = 0;
  ASSERT_EQ(leader
                .call("PUT", "/v1/config/routes/r7", "{path: /r/7, status: 410}",
                      {{"Content-Type", "application/yaml"}, {"If-Match", "*"}})
                .status,
            200);
  ASSERT_EQ(leader.call("DELETE", "/v1/config/routes/r8", {}, {{"If-Match", "*"}}).status, 200);
  ASSERT_EQ(leader.call_json("PUT", "/v1/admin/pool/origins", {{"state", "drained"}, {"note", "after"}}).status, 200);
  ASSERT_TRUE(caught_up());
  EXPECT_LT(relay->streamed, streamed_at_most);
  EXPECT_EQ(follower.control->host_state().manifest().entries, leader.control->host_state().manifest().entries);
  EXPECT_EQ(follower.control->host_state().live_state()->overrides.at("pool/origins").note, "after");
  ASSERT_EQ(leader.put_config(with_routes(count - count / 10, "410", bytes)).status, 200);
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(follower.control->host_state().manifest().entries, leader.control->host_state().manifest().entries);
  EXPECT_EQ(relay->streams, 1);
  EXPECT_EQ(relay->calls_for_one, 0);
}

// A whole manifest of 200 routes has 27 KB, and one of 1,500 has 200 KB.
TEST_F(RelayedReplicaTest, ManyObjectsComeInFewCallsAndAChangeComesAlone) { follow_many_objects(200, 2'000, 20'000); }
TEST_F(LongRelayedReplicaTest, ManyObjectsComeInFewCallsAndAChangeComesAlone) {
  follow_many_objects(1'500, 300, 40'000);
}

// A follower that was away. A leader that does not learn that it reads changes sends the whole manifest.
TEST_F(RelayedReplicaTest, AReconnectCostsWhatChanged) {
  ASSERT_EQ(leader.put_config(with_routes(300, "404", 300)).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  for (const bool earlier_release : {false, true}) {
    follower.stop();
    const std::string route = earlier_release ? "r8" : "r7";
    ASSERT_EQ(leader
                  .call("PUT", "/v1/config/routes/" + route, fmt::format("{{path: /{}, status: 410}}", route),
                        {{"Content-Type", "application/yaml"}, {"If-Match", "*"}})
                  .status,
              200);
    ASSERT_EQ(leader.call("DELETE", "/v1/config/routes/" + route + "0", {}, {{"If-Match", "*"}}).status, 200);
    const int called = relay->calls_for_many;
    relay->streamed = 0;
    relay->earlier_release = earlier_release;
    follower.start();
    ASSERT_TRUE(caught_up());
    if (earlier_release) {
      EXPECT_GT(relay->streamed, 30'000u);
    } else {
      EXPECT_LT(relay->streamed, 20'000u) << "a whole manifest has 40 KB";
      EXPECT_EQ(relay->calls_for_many, called);
    }
    EXPECT_EQ(follower.control->host_state().manifest().entries, leader.control->host_state().manifest().entries);
  }
}

TEST_F(RelayedReplicaTest, AReconnectFromAVersionThatTheLeaderDoesNotKeepBringsTheWhole) {
  leader.options.versions_kept = 2;
  restart_leader();
  ASSERT_EQ(leader.put_config(with_routes(50)).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  follower.stop();
  for (const char* status : {"410", "411", "412", "413"}) {
    ASSERT_EQ(leader.put_config(with_routes(50, status)).status, 200);
  }
  ASSERT_FALSE(leader.control->host_state().store().manifest(1));
  follower.start();
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(follower.control->host_state().manifest().entries, leader.control->host_state().manifest().entries);
}

// Objects that have not changed are not read again: the bytes of a file stay the same object in memory.
TEST_F(ReplicaTest, AChangeIsReadWithoutTheRest) {
  const std::string zone =
      "$ORIGIN example.test.\n$TTL 300\n@ IN SOA ns1 hostmaster 1 3600 600 604800 60\n"
      "@ IN NS ns1\nns1 IN A 192.0.2.1\n";
  const auto put = [&](const char* weight) {
    Bundle bundle;
    bundle.file = "edge.yaml";
    bundle.text = edge_yaml(weight, "zones:\n  - {name: example.test, file: example.test.zone}\n");
    bundle.files["example.test.zone"] = std::make_shared<const std::string>(zone);
    return leader.call("PUT", "/v1/config", encode_bundle(bundle), {{"Content-Type", kBundleType}, {"If-Match", "*"}})
        .status;
  };
  ASSERT_EQ(put("100"), 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  const auto before = follower.control->host_state().model();
  ASSERT_EQ(put("7"), 200);
  ASSERT_TRUE(caught_up());
  const auto after = follower.control->host_state().model();
  EXPECT_EQ(after->pools[0].backends[0].weight, 7u);
  ASSERT_EQ(after->zones.size(), 1u);
  ASSERT_NE(after->zones[0].file.bytes, nullptr);
  EXPECT_EQ(after->zones[0].file.bytes, before->zones[0].file.bytes);
}

// Versions that come while the objects of another one are fetched. Nothing is lost, and nothing is fetched again and
// again.
void RelayedReplicaTest::follow_versions_while_one_is_fetched(int count) {
  ASSERT_EQ(leader.put_config(with_routes(count / 6)).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  for (int turn = 0; turn < 4; ++turn) {
    ASSERT_EQ(leader.put_config(with_routes(count + turn, turn % 2 == 0 ? "410" : "404")).status, 200);
    for (const char* name : {"r1", "r2", "r3"}) {
      ASSERT_EQ(leader
                    .call("PUT", fmt::format("/v1/config/routes/{}", name),
                          fmt::format("{{path: /{}, status: 41{}}}", name, turn),
                          {{"Content-Type", "application/yaml"}, {"If-Match", "*"}})
                    .status,
                200);
    }
    ASSERT_EQ(leader.call_json("PUT", "/v1/admin/pool/origins", {{"state", "drained"}, {"note", std::to_string(turn)}})
                  .status,
              200);
  }
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(follower.control->host_state().manifest().digest, leader.control->host_state().manifest().digest);
  EXPECT_EQ(follower.control->host_state().live_state()->overrides.at("pool/origins").note, "3");
  EXPECT_EQ(relay->streams, 1) << "it never had to begin anew";
}

TEST_F(RelayedReplicaTest, ChangesOfAVersionThatIsStillBeingFetchedWaitForIt) {
  follow_versions_while_one_is_fetched(200);
}
TEST_F(LongRelayedReplicaTest, ChangesOfAVersionThatIsStillBeingFetchedWaitForIt) {
  follow_versions_while_one_is_fetched(1'200);
}

TEST_F(RelayedReplicaTest, ALeaderOfAnEarlierReleaseGivesOneObjectInACall) {
  relay->earlier_release = true;
  ASSERT_EQ(leader.put_config(with_routes(200)).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(relay->calls_for_many, 1);
  EXPECT_GE(relay->calls_for_one, 10);
  ASSERT_EQ(leader.put_config(with_routes(200, "410")).status, 200);
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(follower.control->host_state().manifest().digest, leader.control->host_state().manifest().digest);
  EXPECT_EQ(relay->streams, 1);
}

TEST_F(RelayedReplicaTest, ObjectsThatAreNotWhatTheirHashesSayAreNotTaken) {
  ASSERT_EQ(leader.put_config(with_routes(200)).status, 200);
  relay->falsify = [](std::string& answer) { answer.back() = static_cast<char>(answer.back() ^ 1); };
  follower.start();
  ASSERT_TRUE(pump(loop, [&] { return trouble().find("not what its hash says") != std::string::npos; }));
  relay->falsify = [](std::string& answer) { answer.resize(answer.size() / 2); };
  ASSERT_TRUE(pump(loop, [&] { return trouble().find("more than came") != std::string::npos; }));
  EXPECT_EQ(follower.control->host_state().head().version, 0u);
  relay->falsify = nullptr;
  ASSERT_TRUE(caught_up());
}

TEST_F(ReplicaTest, AListOfHashesThatIsNoneIsRefused) {
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  const auto ask = [&](const std::string& token, const std::string& body) {
    return leader.call_as(token, "POST", "/v1/objects", body, {{"Content-Type", "application/json"}}).status;
  };
  EXPECT_EQ(ask(kReplicaToken, "[]"), 400);
  EXPECT_EQ(ask(kReplicaToken, "[\"x\"]"), 400);
  EXPECT_EQ(ask(kReplicaToken, "[\"" + std::string(64, 'a') + "\"]"), 200) << "it has none of them";
  EXPECT_EQ(ask(kReplicaToken, std::string(600'000, ' ')), 413);
  EXPECT_EQ(ask(kPublisherToken, "[\"" + std::string(64, 'a') + "\"]"), 403) << "private keys are for controls alone";
  const std::string hash = leader.control->host_state().manifest().entries.front().hash;
  EXPECT_EQ(ask(kReplicaToken, "[\"" + hash + "\"]"), 200);
}

// The backends are ports of this test: one answers, one does not.
std::string probed_yaml(uint16_t good, uint16_t bad) {
  return R"(sites:
  - {name: eu}
  - {name: us}
nodes:
  - {name: box, site: eu, l7: {workers: 1}}
  - {name: other, site: us, l7: {workers: 1}}
pools:
  - name: origins
    probe: alive
    backends:
      - {name: here, addresses: [127.0.0.1], port: )" +
         std::to_string(bad) + R"(, site: us}
      - {name: there, addresses: [127.0.0.1], port: )" +
         std::to_string(good) + R"(, site: eu}
probes:
  - {name: alive, type: tcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 1}
listeners:
  - {name: http, bind: ["127.0.0.1:8000"]}
routes:
  - {name: all, path: "/*", pool: origins}
)";
}

TEST_F(ReplicaTest, VerdictsOfAHostAloneEndWithItsLeadersWord) {
  const auto leaders = [&] { return leader.control->host_state().head(); };
  ASSERT_EQ(leader.put_config(edge_yaml()).status, 200);
  ASSERT_EQ(leader.call_json("PUT", "/v1/admin/pool/origins", {{"state", "drained"}, {"note", "kept"}}).status, 200);
  follower.start();
  ASSERT_TRUE(caught_up());
  const uint64_t words = leaders().live_state;
  leader.stop();
  HostState& state = follower.control->host_state();
  ASSERT_TRUE(state.set_site_verdicts({{"backend/origins/origin1", HealthVerdict{false, "seen alone", 1}}}));
  EXPECT_GT(state.head().live_state, StateStore::kSiteWords);
  EXPECT_EQ(state.live_state()->health.at("backend/origins/origin1").reason, "seen alone");
  leader.start();
  ASSERT_TRUE(caught_up());
  EXPECT_EQ(state.head().live_state, words);
  EXPECT_TRUE(state.live_state()->health.empty());
  EXPECT_EQ(state.live_state()->overrides.at("pool/origins").note, "kept");
}

class LongReplicaTest : public ReplicaTest {};

TEST_F(LongReplicaTest, AHostWhoseLeaderIsSilentProbesItsOwnSiteAndSaysSo) {
  HttpServer backend(loop, [](const HttpExchangePtr&) {});
  ASSERT_TRUE(backend.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
  const uint16_t port = backend.tcp_endpoint().port;
  ASSERT_EQ(leader.put_config(probed_yaml(port, port)).status, 200);
  follower.start();
  const auto verdict = [&](const char* name) -> std::optional<HealthVerdict> {
    const auto live_state = follower.control->host_state().live_state();
    const auto found = live_state->health.find(std::string("backend/origins/") + name);
    return found == live_state->health.end() ? std::nullopt : std::optional(found->second);
  };
  ASSERT_TRUE(pump(loop, [&] { return verdict("here") && verdict("here")->up && verdict("there"); }));
  ASSERT_TRUE(caught_up());
  const uint64_t leaders_words = follower.control->host_state().head().live_state;
  leader.stop();
  backend.stop_listening();
  ASSERT_TRUE(pump(loop, [&] { return !verdict("here")->up; }));
  EXPECT_THAT(verdict("here")->reason, HasSubstr("seen from site us alone, no leader is heard"));
  EXPECT_TRUE(verdict("there")->up) << "the other site's backends are left as they are";
  EXPECT_EQ(body_of(follower.call("GET", "/v1/node/status")).value("probes", ""), "own site");
  // A restart forgets nothing, and the leader's message ends it.
  follower.stop();
  follower.start();
  EXPECT_FALSE(verdict("here")->up);
  HttpServer again(loop, [](const HttpExchangePtr&) {});
  ASSERT_TRUE(again.listen_tcp(*Endpoint::parse("127.0.0.1:" + std::to_string(port))));
  leader.start();
  ASSERT_TRUE(pump(loop, [&] { return verdict("here") && verdict("here")->up; }));
  EXPECT_EQ(verdict("here")->reason, "");
  ASSERT_TRUE(caught_up());
  EXPECT_LT(follower.control->host_state().head().live_state, leaders_words + 10);
  ASSERT_TRUE(pump(loop, [&] { return !body_of(follower.call("GET", "/v1/node/status")).contains("probes"); }));
}

}  // namespace tidegate::testing::replica_test
