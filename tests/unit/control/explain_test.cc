// SPDX-License-Identifier: Apache-2.0
// Explain: the planes are asked in the order in which a client meets them. Each answer decides which one is asked next.

#include "control/observe/explain.h"

#include "control/observe/explanation_text.h"
#include "tests/unit/control/host.h"

namespace tidegate::testing::explain_test {

using nlohmann::json;
using ::testing::HasSubstr;

// One node that runs everything: dns, l4 and l7.
constexpr const char* kWholeEdge = R"(sites:
  - {name: eu, location: {latitude: 50.11, longitude: 8.68}}
nodes:
  - name: box
    site: eu
    l4: {ports: [{device: eth0, addresses: [192.0.2.2/24]}]}
    l7: {workers: 1}
    dns: {listen: ["127.0.0.1:5353"]}
vips:
  - {name: vip-eu, site: eu, addresses: [192.0.2.100]}
services:
  - {name: https-eu, vip: vip-eu, port: 443, protocol: tcp, pool: proxies}
pools:
  - name: proxies
    backends: [{name: proxy1, node: box, addresses: [192.0.2.11]}]
  - name: origins
    backends: [{name: origin1, addresses: [192.0.2.21], port: 8080}]
listeners:
  - {name: http, bind: ["127.0.0.1:8000"]}
routes:
  - {name: all, path: "/*", pool: origins}
)";

class ExplainTest : public ::testing::Test {
 protected:
  void SetUp() override {
    host.start();
    const HttpResponse put = host.put_config(kWholeEdge);
    ASSERT_EQ(put.status, 200) << put.body;
    dns.explained = {
        {"plane", "dns"}, {"name", "www.example.test."}, {"answers", {"192.0.2.100"}}, {"reason", "nearest"}};
    l4.explained = {{"plane", "l4"}, {"backend", "proxy1"}, {"decision", "maglev"}, {"reason", "new flow"}};
    l7.explained = {
        {"plane", "l7"}, {"route", "all"}, {"pool", "origins"}, {"backend", "origin1"}, {"reason", "only one"}};
  }
  json explain(const std::string& query) { return body_of(host.call("GET", "/v1/explain?" + query)); }

  EventLoop loop;
  Host host{loop};
  FakePlane dns{loop, host.options.run_dir, "dns"};
  FakePlane l4{loop, host.options.run_dir, "l4"};
  FakePlane l7{loop, host.options.run_dir, "l7"};
};

TEST_F(ExplainTest, JoinsWhatEachPlaneSaysOnTheWay) {
  const json explanation = explain("client=198.51.100.7&client_port=4000&url=https://www.example.test/a%3Fb");
  ASSERT_EQ(explanation["steps"].size(), 3u) << explanation;
  EXPECT_EQ(explanation["steps"][0]["vip"], "vip-eu");
  EXPECT_EQ(explanation["steps"][1]["backend"], "proxy1");
  EXPECT_EQ(explanation["steps"][2]["backend"], "origin1");
  EXPECT_THAT(dns.asked, HasSubstr("client=198.51.100.7&name=www.example.test&type=A"));
  EXPECT_THAT(l4.asked, HasSubstr("vip=192.0.2.100&port=443"));
  EXPECT_THAT(l4.asked, HasSubstr("client_port=4000"));
  EXPECT_THAT(l7.asked, HasSubstr("url=https%3A%2F%2Fwww.example.test%2Fa%3Fb"));
  EXPECT_THAT(explanation["sentence"].get<std::string>(), HasSubstr("vip-eu"));
}

TEST_F(ExplainTest, FieldsAndBodyOfTheRequestReachTheProxyAndWhatItCannotKnowIsTold) {
  l7.explained = {{"plane", "l7"},
                  {"route", "all"},
                  {"ends", {{"at", "policy"}, {"policy", "quota"}, {"kind", "limit"}, {"verdict", "refused"}}},
                  {"reason", "policy quota, limit: refused"},
                  {"not_asked", {"policy who, authenticate: credentials"}}};
  const json told =
      explain("client=198.51.100.7&url=https://www.example.test/&method=POST&headers=A%3A%20b%0AC%3A%20d&body=7");
  EXPECT_THAT(l7.asked, HasSubstr("method=POST&headers=A%3A%20b%0AC%3A%20d&body=7"));
  EXPECT_THAT(told["sentence"].get<std::string>(), HasSubstr("takes route all and ends it at policy quota"));
  EXPECT_THAT(told["sentence"].get<std::string>(), HasSubstr("not asked: policy who, authenticate: credentials"));
}

TEST_F(ExplainTest, WithoutASingleBackendTheEligibleOnesShowTheWay) {
  l4.explained = {{"plane", "l4"}, {"backend", nullptr}, {"eligible", {{{"backend", "proxy1"}, {"state", "up"}}}}};
  const json explanation = explain("client=198.51.100.7&url=https://www.example.test/");
  EXPECT_EQ(explanation["steps"][2]["route"], "all") << explanation;
}

TEST_F(ExplainTest, AnAnswerWithoutAddressEndsTheWay) {
  dns.explained = {{"plane", "dns"}, {"name", "www.example.test."}, {"answers", json::array()}, {"reason", "NXDOMAIN"}};
  const json explanation = explain("client=198.51.100.7&url=https://www.example.test/");
  ASSERT_EQ(explanation["steps"].size(), 2u);
  EXPECT_THAT(explanation["sentence"].get<std::string>(), HasSubstr("NXDOMAIN"));
}

TEST_F(ExplainTest, ANameOfNoZoneIsAnotherNameServersAndTheWayGoesOn) {
  dns.explained = {{"plane", "dns"},
                   {"name", "www.other.test."},
                   {"rcode", "REFUSED"},
                   {"answers", json::array()},
                   {"reason", "no zone"}};
  const json explanation = explain("client=198.51.100.7&url=https://www.other.test/");
  ASSERT_EQ(explanation["steps"].size(), 3u) << explanation;
  EXPECT_THAT(l4.asked, HasSubstr("vip=192.0.2.100&port=443"));
  EXPECT_EQ(explanation["steps"][2]["backend"], "origin1");
}

TEST_F(ExplainTest, WithoutVipsAnAddressIsAProxysOwn) {
  std::string text = kWholeEdge;
  const size_t begin = text.find("vips:"), end = text.find("pools:");
  text.erase(begin, end - begin);
  ASSERT_EQ(host.put_config(text).status, 200);
  const json explanation = explain("client=198.51.100.7&url=https://www.example.test/");
  ASSERT_EQ(explanation["steps"].size(), 3u) << explanation;
  EXPECT_EQ(explanation["steps"][2]["backend"], "origin1") << explanation;
}

TEST_F(ExplainTest, AnAddressInTheUrlNeedsNoDns) {
  const json explanation = explain("client=198.51.100.7&url=https://192.0.2.100/");
  EXPECT_TRUE(explanation["steps"][0].contains("skipped"));
  EXPECT_EQ(explanation["steps"][1]["backend"], "proxy1");
  EXPECT_TRUE(dns.asked.empty());
}

// A proxy's record of a past request, as its /explain?request=ID answers.
json record_of_past(const json& more = json::object()) {
  json record = {{"ended", "2026-11-27T00:00:00.000Z"},
                 {"version", 1},
                 {"peer", "198.51.100.7"},
                 {"peer_port", 4000},
                 {"destination", "192.0.2.100"},
                 {"destination_port", 443},
                 {"route", "all"},
                 {"variant", "next"},
                 {"pool", "origins"},
                 {"backend", "origin1"},
                 {"tries", 2},
                 {"status", 200},
                 {"failed_tries", {{{"backend", "origin2"}, {"failure", "connect_failed"}}}},
                 {"reason", "try 2: those before it had failed"}};
  record.update(more);
  return {{"plane", "l7"}, {"found", true}, {"records", {std::move(record)}}};
}

TEST_F(ExplainTest, APastRequestIsToldWithTheFlowOfItsConnection) {
  l7.explained = record_of_past();
  l4.explained = {{"plane", "l4"}, {"backend", "proxy1"}, {"decision", "flow"}, {"reason", "pinned"}};
  const json told = explain("request=an%20id%2F1");
  EXPECT_EQ(told["found"], true) << told;
  EXPECT_THAT(l7.asked, HasSubstr("request=an%20id%2F1"));
  EXPECT_THAT(l4.asked, HasSubstr("client=198.51.100.7&client_port=4000&vip=192.0.2.100&port=443&protocol=tcp"));
  ASSERT_EQ(told["steps"].size(), 2u) << told;
  EXPECT_EQ(told["steps"][0]["vip"], "vip-eu");
  EXPECT_EQ(told["steps"][0]["pinned"], true);
  EXPECT_EQ(told["steps"][1]["node"], "box");
  EXPECT_EQ(told["steps"][1]["vip"], "vip-eu");
  const std::string sentence = told["sentence"];
  EXPECT_THAT(sentence, HasSubstr("has the flow to vip-eu pinned to proxy1"));
  EXPECT_THAT(
      sentence,
      HasSubstr("under version 1: route all, variant next, pool origins, backend origin1 at try 2, status 200"));
  EXPECT_THAT(sentence, HasSubstr("origin2 failed: connect_failed"));
}

TEST_F(ExplainTest, AFlowThatHasEndedIsNotGuessed) {
  l7.explained = record_of_past();
  l4.explained = {{"plane", "l4"}, {"backend", "proxy2"}, {"decision", "maglev"}, {"reason", "no flow is pinned"}};
  const json told = explain("request=x");
  EXPECT_EQ(told["steps"][0]["pinned"], false);
  EXPECT_THAT(told["sentence"].get<std::string>(), HasSubstr("has no flow to vip-eu of this connection"));
}

TEST_F(ExplainTest, WhereAConnectionLedToIsOnlyToldIfItIsKnown) {
  l7.explained = record_of_past({{"destination", nullptr}});
  EXPECT_THAT(explain("request=x")["steps"][0]["skipped"].get<std::string>(), HasSubstr("is not recorded"));
  l7.explained = record_of_past({{"destination", "192.0.2.11"}});
  EXPECT_EQ(explain("request=x")["steps"][0]["skipped"], "192.0.2.11 is no VIP of version 1");
  EXPECT_TRUE(l4.asked.empty());
}

TEST_F(ExplainTest, AForgottenRequestIsSaidSoWithTheProxysReason) {
  l7.explained = {{"plane", "l7"}, {"found", false}, {"records", json::array()}, {"forgotten", "newer ones"}};
  const json told = explain("request=x");
  EXPECT_EQ(told["found"], false);
  EXPECT_EQ(told["not_found"], json::parse(R"([{"node":"box","why":"newer ones"}])"));
  EXPECT_EQ(told["sentence"], "l7 on box does not know it: newer ones");
}

TEST_F(ExplainTest, AnswersOfAProxyThatAreNoRecordsAreNoPass) {
  for (const json& answer : {json(1), json{{"records", 1}}, json{{"records", {1}}}, json::object()}) {
    l7.explained = answer;
    EXPECT_EQ(explain("request=x")["found"], false) << answer;
  }
}

TEST_F(ExplainTest, MalformedQuestionsAreRefused) {
  for (const char* query : {"", "client=nobody&url=https://x/", "client=192.0.2.1", "client=192.0.2.1&url=ftp://x/",
                            "client=192.0.2.1&url=https://", "client=192.0.2.1&url=https://x:99999/",
                            "client=192.0.2.1&client_port=0&url=https://x/", "request=", "request=a&client=192.0.2.1",
                            "request=a&url=https://x/"}) {
    EXPECT_EQ(host.call("GET", std::string("/v1/explain?") + query).status, 400) << query;
  }
}

TEST(ExplainUnreachable, APlaneThatDoesNotAnswerIsAStepThatSaysSo) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(kWholeEdge).status, 200);
  const json explanation = body_of(host.call("GET", "/v1/explain?client=192.0.2.9&url=https://www.example.test/"));
  EXPECT_TRUE(explanation["steps"][0].contains("error")) << explanation;
  EXPECT_THAT(explanation["sentence"].get<std::string>(), HasSubstr("could not be asked"));
  const json past = body_of(host.call("GET", "/v1/explain?request=x"));
  EXPECT_EQ(past["found"], false) << past;
  EXPECT_EQ(past["unreachable"][0]["node"], "box") << past;
}

TEST(ExplainWithoutDns, ASingleProxyIsAskedDirectly) {
  EventLoop loop;
  Host host(loop);
  host.start();
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  FakePlane l7(loop, host.options.run_dir, "l7");
  l7.explained = {
      {"plane", "l7"}, {"route", "all"}, {"cache", nullptr}, {"pool", "origins"}, {"eligible", json::array()}};
  const json explanation = body_of(host.call("GET", "/v1/explain?client=192.0.2.9&url=https://www.example.test/"));
  ASSERT_EQ(explanation["steps"].size(), 3u) << explanation;
  EXPECT_EQ(explanation["steps"][2]["route"], "all");
}

TEST(SplitUrl, FindsHostAndPort) {
  EXPECT_EQ(split_url("http://a.test/x")->port, 80);
  EXPECT_EQ(split_url("https://a.test:8443/")->port, 8443);
  EXPECT_EQ(split_url("https://[2001:db8::1]:1/")->host, "2001:db8::1");
  EXPECT_EQ(split_url("https://a.test?x")->host, "a.test");
}

TEST(Explanation, SaysWhoWasLeftOutAndWhy) {
  const ExplanationLine line =
      describe_step({{"plane", "l4"},
                     {"backend", "proxy2"},
                     {"decision", "maglev"},
                     {"eligible", {{{"backend", "proxy1"}, {"state", "down"}, {"why", "connect refused"}}}}});
  EXPECT_EQ(line.what, "forwards to proxy2 (maglev)");
  EXPECT_THAT(line.why, HasSubstr("proxy1 is down: connect refused"));
}

TEST(Explanation, FollowsSteersWithinSteers) {
  const nlohmann::json outer = {{"steer", "www.example.test."}, {"text", "www.example.test (failover): the first"}};
  const nlohmann::json inner = {{"steer", "eu.example.test."}, {"text", "eu.example.test (nearest): the nearest"}};
  const nlohmann::json taken = {{"target", "steer/eu"}, {"text", "steer/eu is taken"}};
  const auto why = [](nlohmann::json steps) {
    return describe_step({{"plane", "dns"}, {"reason", "the first"}, {"steps", std::move(steps)}}).why;
  };
  EXPECT_EQ(
      why({outer, taken, inner}),
      "the first; www.example.test (failover): the first > steer/eu is taken > eu.example.test (nearest): the nearest");
  EXPECT_EQ(why({outer, taken}), "the first") << "one steer has told its reason already";
  EXPECT_EQ(why("nothing of the kind"), "the first");
}

}  // namespace tidegate::testing::explain_test
