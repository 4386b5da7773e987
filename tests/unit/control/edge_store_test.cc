// SPDX-License-Identifier: Apache-2.0
// The state of an edge in a real etcd: who leads, what is decided, and what happens to hosts that were away.

#include "control/etcd/edge_store.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "control/api/bundle.h"
#include "tests/unit/control/etcd_server.h"

namespace tidegate::testing::edge_store_test {

using ::testing::AnyOf;
using ::testing::HasSubstr;

// One etcd for all tests. Each test has a prefix of its own.
class EdgeStoreTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    server = new EtcdServer();
    server->start();
  }
  static void TearDownTestSuite() {
    delete server;
    server = nullptr;
  }
  void SetUp() override {
    static int tests = 0;
    prefix = "/test-" + std::to_string(++tests) + "/";
    for (Host* host : {&a, &b, &c}) prepare(*host, server->endpoint());
  }
  void prepare(Host& host, const std::string& endpoint) {
    host.options.etcd_endpoints = {endpoint};
    host.options.etcd_prefix = prefix;
    host.options.etcd_lease_s = 1;
    host.options.secret_file = host.directory.write("secret", "the secret of the site");
  }
  nlohmann::json store_of(Host& host) {
    return body_of(host.call("GET", "/v1/node/status")).value("store", nlohmann::json::object());
  }
  bool leads(Host& host) { return host.control && store_of(host).value("leads", false); }
  // Waits until one of them leads.
  Host* leader_of(std::vector<Host*> hosts) {
    Host* leader = nullptr;
    EXPECT_TRUE(pump(loop, [&] {
      for (Host* host : hosts) leader = leader == nullptr && leads(*host) ? host : leader;
      return leader != nullptr;
    })) << "nobody leads";
    return leader;
  }
  bool same(Host& one, Host& other) {
    return pump(loop, [&] {
      return position(one).sequence != 0 && position(one) == position(other) && took_up(one) && took_up(other);
    });
  }
  // A version is stored outside of the loop, and then taken up on it.
  static bool took_up(Host& host) {
    const HostState& state = host.control->host_state();
    return *state.store().head() == state.head();
  }
  static JournalPosition position(Host& host) { return *host.control->host_state().store().journal_position(); }
  // Everything that is stored, as bytes.
  static std::string content(Host& host) {
    JournalPosition ignored;
    return encode_write_set(*host.control->host_state().store().everything(ignored));
  }
  static EtcdServer* server;
  std::string prefix;
  EventLoop loop;
  Host a{loop, "a"}, b{loop, "b"}, c{loop, "c"};
};
EtcdServer* EdgeStoreTest::server = nullptr;

TEST_F(EdgeStoreTest, EveryHostHasWhatTheLeaderDecidedOfEveryKind) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.start();
  c.start();
  ASSERT_EQ(a.put_config(edge_yaml("7")).status, 200);
  ASSERT_EQ(a.call_json("PUT", "/v1/admin/pool/origins", {{"state", "drained"}, {"note", "kept"}}).status, 200);
  ASSERT_EQ(a.call_json("POST", "/v1/purge", {{"tag", "news"}}, {{"Idempotency-Key", "k1"}}).status, 200);
  ASSERT_TRUE(same(a, b) && same(a, c));
  EXPECT_EQ(content(a), content(b));
  EXPECT_EQ(content(a), content(c));
  EXPECT_EQ(b.control->host_state().head().version, 2u);
  EXPECT_EQ(b.control->host_state().model()->pools[0].backends[0].weight, 7u);
  EXPECT_EQ(c.control->host_state().live_state()->overrides.at("pool/origins").note, "kept");
  EXPECT_EQ(c.control->host_state().head().purge, 1u);
}

TEST_F(EdgeStoreTest, OnlyTheLeaderTakesWritesAndTheOthersNameIt) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.start();
  ASSERT_TRUE(same(a, b));
  const HttpResponse refused = b.put_config(edge_yaml("7"));
  EXPECT_EQ(refused.status, 421) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr("node a leads"));
  EXPECT_EQ(b.call_json("POST", "/v1/purge", {{"all", true}}).status, 421);
  EXPECT_EQ(b.call("GET", "/v1/config").status, 200);
  EXPECT_EQ(body_of(b.call("GET", "/v1/node/status"))["role"], "replica");
  EXPECT_THAT(b.call("GET", "/healthz").body, HasSubstr("leader: a"));
}

TEST_F(EdgeStoreTest, AnotherControlLeadsWhenTheLeaderIsGoneAndNothingIsLost) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.start();
  c.start();
  ASSERT_TRUE(same(a, b) && same(a, c));
  const HttpResponse first = a.call_json("POST", "/v1/purge", {{"tag", "news"}}, {{"Idempotency-Key", "once"}});
  ASSERT_EQ(first.status, 200);
  a.stop();  // without notice, so its lease must end
  Host* const next = leader_of({&b, &c});
  ASSERT_NE(next, nullptr);
  const HttpResponse again = next->call_json("POST", "/v1/purge", {{"tag", "news"}}, {{"Idempotency-Key", "once"}});
  EXPECT_EQ(again.status, 200);
  EXPECT_EQ(again.body, first.body) << "the answer to a repeated request is in etcd too";
  EXPECT_EQ(next->control->host_state().head().purge, 1u) << "it is not done again";
  ASSERT_EQ(next->put_config(edge_yaml("8")).status, 200);
  a.start();
  ASSERT_TRUE(same(a, *next));
  EXPECT_EQ(content(a), content(*next));
}

// Planes refuse an older candidate while they hold a newer one, and the clock of the next leader may be behind.
nlohmann::json provisional_of(Host& host) { return body_of(host.call("GET", "/v1/confirm"))["provisional"]; }

TEST_F(EdgeStoreTest, AVersionThatIsConfirmedStaysOnEveryHost) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.start();
  const HttpResponse put = a.put_config(edge_yaml("2"), "*", "?confirm=60000");
  ASSERT_EQ(put.status, 200) << put.body;
  ASSERT_TRUE(same(a, b));
  EXPECT_EQ(provisional_of(b)["version"], 2) << "it comes with the version";
  EXPECT_EQ(provisional_of(b)["back_to"], 1);
  EXPECT_EQ(a.put_config(edge_yaml("3")).status, 409) << "it is confirmed or reverted first";
  EXPECT_EQ(b.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 421) << "whoever leads confirms";
  EXPECT_EQ(a.call_json("POST", "/v1/confirm", {{"version", 1}}).status, 409);
  ASSERT_EQ(a.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 200);
  EXPECT_EQ(a.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 409) << "once";
  ASSERT_TRUE(same(a, b));
  EXPECT_TRUE(provisional_of(a).is_null() && provisional_of(b).is_null());
  EXPECT_EQ(b.control->host_state().head().version, 2u);
  EXPECT_EQ(content(a), content(b));
  EXPECT_EQ(a.put_config(edge_yaml("3")).status, 200);
}

TEST_F(EdgeStoreTest, WhoeverLeadsNextRevertsAVersionThatNobodyConfirmed) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml("5")).status, 200);
  b.start();
  ASSERT_TRUE(same(a, b));
  ASSERT_EQ(a.put_config(edge_yaml("6"), "*", "?confirm=1000").status, 200);
  ASSERT_TRUE(same(a, b));
  a.stop();  // without notice
  ASSERT_EQ(leader_of({&b}), &b);
  ASSERT_TRUE(pump(loop, [&] { return b.control->host_state().head().version == 3; }));
  EXPECT_EQ(b.control->host_state().model()->pools[0].backends[0].weight, 5u) << "the content of version 1 again";
  EXPECT_TRUE(provisional_of(b).is_null());
  EXPECT_EQ(b.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 409) << "too late";
  a.start();
  ASSERT_TRUE(same(a, b));
  EXPECT_TRUE(provisional_of(a).is_null());
  EXPECT_EQ(content(a), content(b));
}

TEST_F(EdgeStoreTest, WhoeverLeadsNextCanConfirmAndAHostThatWasAwayLearnsIt) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.start();
  ASSERT_EQ(a.put_config(edge_yaml("2"), "*", "?confirm=60000").status, 200);
  ASSERT_TRUE(same(a, b));
  a.stop();
  ASSERT_EQ(leader_of({&b}), &b);
  ASSERT_EQ(b.call_json("POST", "/v1/confirm", {{"version", 2}}).status, 200);
  a.start();
  ASSERT_TRUE(same(a, b));
  EXPECT_TRUE(provisional_of(a).is_null());
  EXPECT_EQ(a.control->host_state().head().version, 2u);
}

TEST_F(EdgeStoreTest, CandidatesAreNumberedByTheTermAndNotByTheClock) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  const uint64_t before = body_of(a.put_config(edge_yaml("1"))).value("candidate", uint64_t{0});
  bool done = false;
  a.control->hand_over([&] { done = true; });
  ASSERT_TRUE(pump(loop, [&] { return done; }));
  b.start();
  ASSERT_EQ(leader_of({&b}), &b);
  const uint64_t after = body_of(b.put_config(edge_yaml("2"))).value("candidate", uint64_t{0});
  EXPECT_GT(before, 0u);
  EXPECT_GT(after, before);
  EXPECT_LT(after, uint64_t{1} << 48) << "a time would be larger";
}

TEST_F(EdgeStoreTest, AControlThatEndsHandsTheLeadOver) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  a.options.etcd_lease_s = 60;  // so long that nobody may have to wait for it
  a.stop();
  b.options.etcd_lease_s = 60;
  b.start();
  ASSERT_EQ(leader_of({&b}), &b);
  c.start();
  ASSERT_TRUE(same(b, c));
  bool done = false;
  b.control->hand_over([&] { done = true; });
  ASSERT_TRUE(pump(loop, [&] { return done; }));
  EXPECT_FALSE(leads(b));
  EXPECT_EQ(leader_of({&c}), &c);
}

// Objects larger than a piece, and more of them than a transaction may have operations.
TEST_F(EdgeStoreTest, ALargeVersionIsStoredInPiecesAndComesWhole) {
  a.start();
  b.start();
  Host* const leader = leader_of({&a, &b});
  ASSERT_NE(leader, nullptr);
  Bundle bundle;
  bundle.file = "edge.yaml";
  bundle.text = edge_yaml("100", "zones:\n  - {name: example.test, file: big.zone}\n");
  const size_t at = bundle.text.find("listeners:");
  std::string pools;
  for (int i = 0; i < 130; ++i) {
    pools += "  - {name: pool-" + std::to_string(i) + ", backends: [{name: b, addresses: [127.0.0.1], port: 8080}]}\n";
  }
  bundle.text.insert(at, pools);
  std::string zone = "$TTL 60\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A 192.0.2.53\n";
  for (int i = 0; zone.size() < kEtcdPieceBytes + 1000; ++i)
    zone += "h" + std::to_string(i) + " IN TXT \"" + std::string(200, 'x') + "\"\n";
  bundle.files["big.zone"] = std::make_shared<const std::string>(zone);
  const HttpResponse put =
      leader->call("PUT", "/v1/config", encode_bundle(bundle), {{"Content-Type", kBundleType}, {"If-Match", "*"}});
  ASSERT_EQ(put.status, 200) << put.body;
  ASSERT_TRUE(same(a, b));
  EXPECT_EQ(content(a), content(b));
  std::string error;
  Host& other = leader == &a ? b : a;
  EXPECT_EQ(*files_of(other.control->host_state())("big.zone", error), zone);
}

// A host that was away for longer than the journal reaches gets the whole state, even if it leads next.
TEST_F(EdgeStoreTest, ALeaderWithAnOldDiskFirstGetsWhatWasDecided) {
  for (Host* host : {&a, &b}) host->options.etcd_checkpoint_writes = 4;
  b.start();
  ASSERT_EQ(leader_of({&b}), &b);
  ASSERT_EQ(b.put_config(edge_yaml()).status, 200);
  a.start();
  ASSERT_TRUE(same(a, b));
  a.stop();
  for (int i = 1; i <= 20; ++i) ASSERT_EQ(b.put_config(edge_yaml(std::to_string(i))).status, 200);
  b.stop();
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  EXPECT_EQ(a.control->host_state().model()->pools[0].backends[0].weight, 20u);
  ASSERT_EQ(a.put_config(edge_yaml("99")).status, 200);
  b.start();
  ASSERT_TRUE(same(a, b)) << "followers do not stall";
  EXPECT_EQ(content(a), content(b));
  EXPECT_EQ(b.control->host_state().head().version, 22u);
}

// A decision of etcd is final. A leader that cannot store a decided write stops leading. So it makes no further write
// on a state without this one. It gets the write when there is room again.
TEST_F(EdgeStoreTest, ALeaderWhoseDiskIsFullGivesTheLeadUpAndHasWhatWasDecidedLater) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml("1")).status, 200);
  {
    const FullDisk full;
    const HttpResponse put = a.put_config(edge_yaml("2"));
    EXPECT_EQ(put.status, 507) << put.body;
    EXPECT_FALSE(leads(a));
    EXPECT_EQ(a.put_config(edge_yaml("3")).status, 503) << "nobody leads";
    EXPECT_THAT(store_of(a).value("trouble", ""), AnyOf(HasSubstr("this host cannot store it"),
                                                        HasSubstr("this host does not have all that was decided")));
    EXPECT_EQ(a.control->host_state().head().version, 1u) << "its planes serve what it has";
  }
  ASSERT_EQ(leader_of({&a}), &a);
  EXPECT_EQ(a.control->host_state().head().version, 2u);
  EXPECT_EQ(a.control->host_state().model()->pools[0].backends[0].weight, 2u);
  ASSERT_EQ(a.put_config(edge_yaml("3")).status, 200);
  b.start();
  ASSERT_TRUE(same(a, b));
  EXPECT_EQ(content(a), content(b));
}

// The host's own results while it heard no leader are not decided.
TEST_F(EdgeStoreTest, AHostThatWroteAloneFetchesWhatWasDecided) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.start();
  ASSERT_TRUE(same(a, b));
  ASSERT_TRUE(
      b.control->host_state().set_site_verdicts({{"backend/origins/origin1", HealthVerdict{false, "seen alone", 1}}}));
  EXPECT_FALSE(position(a) == position(b));
  ASSERT_EQ(a.put_config(edge_yaml("7")).status, 200);
  ASSERT_TRUE(same(a, b));
  EXPECT_EQ(content(a), content(b));
  EXPECT_TRUE(b.control->host_state().live_state()->health.empty());
}

TEST_F(EdgeStoreTest, AHostWithAnotherSecretSaysSoAndNeverLeads) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  b.options.secret_file = b.directory.write("secret", "the secret of another site");
  b.start();
  ASSERT_TRUE(pump(loop, [&] { return store_of(b).contains("trouble"); }));
  EXPECT_THAT(store_of(b)["trouble"].get<std::string>(), HasSubstr("another secret"));
  a.stop();
  ASSERT_TRUE(pump(loop, [&] { return !store_of(b).contains("leader"); }));
  const HttpResponse refused = b.put_config(edge_yaml("7"));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_THAT(refused.body, HasSubstr("another secret"));
  EXPECT_EQ(b.control->host_state().head().version, 0u);
}

// The control was stopped for a while, and still believes that it leads. Its writes compare the leader's key.
TEST_F(EdgeStoreTest, OfTwoLeadersOnlyOneCanWrite) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  const etcd::Keys keys(prefix);
  etcd::Client client(loop, {.endpoints = {server->endpoint()}});
  std::optional<etcd::Range> now;
  const auto read = [&] {
    now.reset();
    client.call("/v3/kv/range", etcd::range_request(keys.now(), etcd::range_end_of(keys.now()), 0),
                [&](const Result<nlohmann::json>& answer) { now = *etcd::parse_range(*answer); });
    return pump(loop, [&] { return now.has_value(); });
  };
  ASSERT_TRUE(read());
  ASSERT_EQ(now->kvs.size(), 2u);
  const etcd::KeyValue head_kv = now->kvs[0], leader_kv = now->kvs[1];
  const etcd::Head head = *etcd::parse_head(head_kv.value);
  a.stop();
  b.start();
  ASSERT_EQ(leader_of({&b}), &b);
  // The earlier leader, with everything that it knew.
  etcd::JournalWriter before(loop, client, keys, [] { return true; });
  std::optional<Result<void>> begun, written;
  before.begin(leader_kv.create_revision, head, head_kv.mod_revision, [&](Result<void> result) { begun = result; });
  ASSERT_TRUE(pump(loop, [&] { return begun.has_value(); }));
  EXPECT_FALSE(*begun);
  etcd::JournalWriter stale(loop, client, keys, [] { return true; });
  stale.begin(leader_kv.create_revision, head, head_kv.mod_revision, [](const Result<void>&) {});
  etcd::Head next = head;
  next.position.sequence += 1;
  next.position.digest = std::string(64, 'a');
  stale.append(next, "a value", [&](Result<void> result) { written = result; });
  ASSERT_TRUE(pump(loop, [&] { return written.has_value(); }));
  ASSERT_FALSE(*written);
  EXPECT_THAT(written->error().message, HasSubstr("another control leads now"));
  ASSERT_TRUE(read());
  EXPECT_EQ(now->kvs[0].value, head_kv.value) << "nothing was written";
}

// --- an etcd of its own, which is killed

class EdgeStoreFailureTest : public EdgeStoreTest {
 protected:
  void SetUp() override {
    EdgeStoreTest::SetUp();
    own.start();
    for (Host* host : {&a, &b}) prepare(*host, own.endpoint());
  }
  EtcdServer own;
};

TEST_F(EdgeStoreFailureTest, WithoutEtcdWritesAreRefusedByNameAndReadsGoOn) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  own.kill();
  ASSERT_TRUE(pump(loop, [&] { return !leads(a); }));
  const HttpResponse refused = a.put_config(edge_yaml("7"));
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.body, AnyOf(HasSubstr("no_leader"), HasSubstr("not_decided")));
  EXPECT_EQ(a.call("GET", "/v1/config").status, 200);
  EXPECT_EQ(a.control->host_state().head().version, 1u);
  own.start();
  ASSERT_EQ(leader_of({&a}), &a);
  EXPECT_EQ(a.put_config(edge_yaml("8")).status, 200);
}

// The transaction is in progress when etcd dies, so nobody knows its result until etcd is back.
TEST_F(EdgeStoreFailureTest, AWriteThatMeetsTheEndOfEtcdIsNotAcknowledged) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml()).status, 200);
  own.kill();
  const HttpResponse refused = a.put_config(edge_yaml("7"));
  EXPECT_EQ(refused.status, 503) << refused.body;
  EXPECT_EQ(a.control->host_state().head().version, 1u) << "what is not decided is not in force";
  own.start();
  ASSERT_EQ(leader_of({&a}), &a);
  EXPECT_EQ(a.put_config(edge_yaml("9")).status, 200);
}

class LongEdgeStoreFailureTest : public EdgeStoreFailureTest {};

TEST_F(LongEdgeStoreFailureTest, WithoutEtcdAHostProbesItsOwnSiteUntilALeaderIsHeard) {
  HttpServer backend(loop, [](const HttpExchangePtr&) {});
  ASSERT_TRUE(backend.listen_tcp(*Endpoint::parse("127.0.0.1:0")));
  const std::string port = std::to_string(backend.tcp_endpoint().port);
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config("sites: [{name: eu}]\nnodes: [{name: a, site: eu, l7: {workers: 1}}]\n"
                         "pools: [{name: p, probe: alive, backends: [{name: one, addresses: [127.0.0.1], port: " +
                         port +
                         "}]}]\nprobes: [{name: alive, type: tcp, interval: 100ms, timeout: 100ms, rise: 1, fall: 1}]\n"
                         "listeners: [{name: http, bind: [\"127.0.0.1:8000\"]}]\n"
                         "routes: [{name: all, path: \"/*\", pool: p}]\n")
                .status,
            200);
  const auto up = [&] {
    const auto live_state = a.control->host_state().live_state();
    const auto found = live_state->health.find("backend/p/one");
    return found == live_state->health.end() ? std::nullopt : std::optional(found->second.up);
  };
  ASSERT_TRUE(pump(loop, [&] { return up() == true; }));
  own.kill();
  ASSERT_TRUE(pump(loop, [&] { return !leads(a); }));
  backend.stop_listening();
  ASSERT_TRUE(pump(loop, [&] { return up() == false; }));
  EXPECT_EQ(body_of(a.call("GET", "/v1/node/status")).value("probes", ""), "own site");
  own.start();
  ASSERT_EQ(leader_of({&a}), &a);
  // The host fetched the decided state, and then had results of its own.
  ASSERT_TRUE(
      pump(loop, [&] { return up() == false && a.control->host_state().head().live_state < StateStore::kSiteWords; }));
  b.start();
  ASSERT_TRUE(same(a, b));
  EXPECT_EQ(content(a), content(b));
}

TEST_F(EdgeStoreFailureTest, AnEtcdThatLostItsContentTakesNothingFromUsUntilSomebodySaysSo) {
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml("5")).status, 200);
  b.start();
  ASSERT_TRUE(same(a, b));
  own.kill();
  own.forget_data();
  own.start();
  ASSERT_TRUE(pump(loop, [&] { return store_of(a).contains("trouble") && store_of(b).contains("trouble"); }));
  EXPECT_THAT(store_of(a)["trouble"].get<std::string>(), HasSubstr("--etcd-begin"));
  EXPECT_FALSE(leads(a) || leads(b));
  EXPECT_EQ(a.control->host_state().head().version, 1u);
  a.stop();
  a.options.etcd_begin = true;
  a.start();
  ASSERT_EQ(leader_of({&a}), &a);
  ASSERT_EQ(a.put_config(edge_yaml("6")).status, 200);
  ASSERT_TRUE(same(a, b));
  EXPECT_EQ(content(a), content(b));
}

// An etcd that accepts only clients with a certificate of its authority. Its JSON gateway is such a client itself, with
// the member's certificate.
TEST(EdgeStoreTls, AnEtcdThatAsksForACertificateTakesTheControlThatShowsOne) {
  const TemporaryDirectory keys;
  const auto openssl = [&keys](const std::string& arguments) {
    const std::string command = "cd " + (keys / "") + " && openssl " + arguments + " 2>>openssl.log";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  };
  const std::string key = " -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes ";
  openssl("req -x509" + key + "-keyout ca.key -out ca.pem -subj /CN=authority -days 2");
  keys.write("address.ext", "subjectAltName=IP:127.0.0.1\n");
  for (const std::string name : {"member", "control"}) {
    openssl("req" + key + "-keyout " + name + ".key -out " + name + ".csr -subj /CN=" + name);
    openssl("x509 -req -in " + name + ".csr -CA ca.pem -CAkey ca.key -CAcreateserial -out " + name +
            ".pem -days 2 -extfile address.ext");
  }
  EtcdServer server({"--cert-file=" + (keys / "member.pem"), "--key-file=" + (keys / "member.key"),
                     "--trusted-ca-file=" + (keys / "ca.pem"), "--client-cert-auth"},
                    "https");
  server.start();
  EventLoop loop;
  Host known{loop, "a"}, stranger{loop, "b"};
  for (Host* host : {&known, &stranger}) {
    host->options.etcd_endpoints = {server.endpoint()};
    host->options.etcd_ca_file = keys / "ca.pem";
    host->options.etcd_lease_s = 1;
    host->options.secret_file = host->directory.write("secret", "the secret of the site");
  }
  known.options.etcd_certificate_file = keys / "control.pem";
  known.options.etcd_key_file = keys / "control.key";
  known.start();
  ASSERT_TRUE(pump(loop, [&] { return known.put_config(edge_yaml()).status == 200; })) << "it leads and writes";
  stranger.start();
  const auto store = [&] { return body_of(stranger.call("GET", "/v1/node/status"))["store"]; };
  EXPECT_TRUE(pump(loop, [&] {
    return stranger.call("GET", "/healthz").body.find("etcd: silent") != std::string::npos;
  })) << store();
  EXPECT_EQ(stranger.put_config(edge_yaml()).status, 503);
  EXPECT_EQ(stranger.control->host_state().head().version, 0u) << "it learned nothing";
}

}  // namespace tidegate::testing::edge_store_test
