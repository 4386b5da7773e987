// SPDX-License-Identifier: Apache-2.0
// Names of probed pools, with a real control and a name server whose answers the test changes.
#include "control/health/name_watch.h"
#include "conf/model/pool.h"

#include "tests/unit/control/host.h"
#include "tests/unit/name_server.h"

namespace tidegate::testing::name_watch_test {

using ::testing::HasSubstr;

NamedEndpoint at(const char* endpoint) { return {*Endpoint::parse(endpoint), 0, 1}; }

TEST(NextRecord, WhatIsStoredStaysUntilALookUpHasSettled) {
  const FoundName stored{{at("192.0.2.1:80"), at("192.0.2.2:80")}, ""};
  const FoundName part{{at("192.0.2.2:80"), at("192.0.2.3:80")}, "app.test: Server failure"};
  const auto next = [&](bool settled) { return next_record(&stored, part, settled, false, 1); };
  EXPECT_EQ(next(false).endpoints,
            (std::vector<NamedEndpoint>{at("192.0.2.1:80"), at("192.0.2.2:80"), at("192.0.2.3:80")}));
  EXPECT_EQ(next(false).trouble, part.trouble);
  EXPECT_EQ(next(true), part);
  EXPECT_EQ(next_record(nullptr, part, false, true, 1), part);
}

TEST(NextRecord, AServerThatLeftStaysForAWhileAndIsBackWhenItIsFoundAgain) {
  const FoundName both{{at("192.0.2.1:80"), at("192.0.2.2:80")}, ""}, one{{at("192.0.2.2:80")}, ""};
  const FoundName left = next_record(&both, one, true, true, 100);
  ASSERT_EQ(left.endpoints.size(), 2u);
  EXPECT_EQ(left.endpoints[0].left_ns, 100u);
  EXPECT_EQ(left.endpoints[1].left_ns, 0u);
  EXPECT_EQ(next_record(&left, one, true, true, 99 + kLeftServerNs), left);
  EXPECT_EQ(next_record(&left, one, true, true, 100 + kLeftServerNs), one);
  EXPECT_EQ(next_record(&left, both, true, true, 200), both);
  EXPECT_EQ(next_record(&left, one, true, false, 200), one) << "no forwarder uses it any more";
}

// Answers every request with 200.
class LiveServer {
 public:
  LiveServer(EventLoop& loop, const std::string& endpoint)
      : server_(loop, [](const HttpExchangePtr& exchange) { exchange->respond(HttpResponse::text(200, "x")); }) {
    EXPECT_TRUE(server_.listen_tcp(*Endpoint::parse(endpoint)));
    port = server_.tcp_endpoint().port;
  }
  uint16_t port;

 private:
  HttpServer server_;
};

class NameWatchTest : public ::testing::Test {
 protected:
  void SetUp() override {
    names.set("app.test", 1, {address_record("127.0.0.1"), address_record("127.0.0.2")});
    host.start();
    put();
  }
  void put(const std::string& more = {}) {
    std::string yaml = edge_yaml("100", more + "probes:\n  - {name: alive, interval: 20ms, rise: 1, fall: 1}\n");
    yaml.replace(yaml.find("    l7: {workers: 1}\n"), 0,
                 "    dns: {enabled: false, resolvers: [\"" + names.endpoint.to_string() + "\"]}\n");
    const size_t from = yaml.find("    backends:"), to = yaml.find("listeners:");
    yaml.replace(from, to - from,
                 "    probe: alive\n    lookup_min: 20ms\n    lookup_max: 20ms\n    backends:\n"
                 "      - {name: web, host: app.test, port: " +
                     std::to_string(live.port) + "}\n");
    const HttpResponse answer = host.put_config(yaml);
    ASSERT_EQ(answer.status, 200) << answer.body;
  }
  HostState& state() { return host.control->host_state(); }
  std::string key(const char* address) const {
    return std::string("backend/origins/web/") + address + ":" + std::to_string(live.port);
  }
  bool becomes(const char* address, bool up) {
    return pump(loop, [&] {
      const auto live_state = state().live_state();
      const auto verdict = live_state->health.find(key(address));
      return verdict != live_state->health.end() && verdict->second.up == up;
    });
  }
  bool has_verdict(const char* address) { return state().live_state()->health.count(key(address)) != 0; }
  // Waits until every lookup in progress, and one more, was answered.
  void wait_for_lookups() {
    const size_t asked = names.asked;
    ASSERT_TRUE(pump(loop, [&] { return names.asked > asked + 4; }));
  }

  EventLoop loop;
  LiveServer live{loop, "127.0.0.1:0"};  // nothing listens at 127.0.0.2
  NameServer names;
  Host host{loop};
};

TEST_F(NameWatchTest, EachServerIsProbedAndAChangeOfAddressesIsNoVersion) {
  ASSERT_TRUE(becomes("127.0.0.1", true));
  ASSERT_TRUE(becomes("127.0.0.2", false));
  const uint64_t version = state().head().version;
  const nlohmann::json health = body_of(host.call("GET", "/v1/health"));
  ASSERT_EQ(health["pools"][0]["backends"].size(), 2u) << health.dump();
  EXPECT_EQ(health["pools"][0]["backends"][0]["state"], "up");
  EXPECT_EQ(health["pools"][0]["backends"][0]["found_by"], "web");
  EXPECT_EQ(health["pools"][0]["backends"][1]["why"], "probe: connect refused");
  EXPECT_EQ(health["names"]["host app.test."]["endpoints"].size(), 2u);
  EXPECT_THAT(host.call("GET", "/metrics").body,
              HasSubstr("tidegate_control_backend_up{pool=\"origins\",backend=\"web/127.0.0.1:"));

  LiveServer third(loop, "127.0.0.3:" + std::to_string(live.port));
  names.set("app.test", 1, {address_record("127.0.0.1"), address_record("127.0.0.3")});
  ASSERT_TRUE(becomes("127.0.0.3", true));
  EXPECT_TRUE(pump(loop, [&] { return !has_verdict("127.0.0.2"); })) << "a verdict goes with its server";
  EXPECT_EQ(state().head().version, version);
}

TEST_F(NameWatchTest, ALookUpThatFailsKeepsTheLastAddressesAlsoAcrossARestart) {
  ASSERT_TRUE(becomes("127.0.0.1", true));
  names.fails = true;
  ASSERT_TRUE(pump(loop, [&] { return !state().live_state()->names.at("host app.test.").trouble.empty(); }));
  EXPECT_EQ(state().live_state()->names.at("host app.test.").endpoints.size(), 2u);
  EXPECT_THAT(host.call("GET", "/metrics").body, HasSubstr("tidegate_control_failing_names 1\n"));
  host.stop();
  host.start();
  wait_for_lookups();
  EXPECT_EQ(state().live_state()->names.at("host app.test.").endpoints.size(), 2u);
  EXPECT_TRUE(has_verdict("127.0.0.1"));
  names.fails = false;
  names.set("app.test", 1, {address_record("127.0.0.1")});
  EXPECT_TRUE(pump(loop, [&] { return state().live_state()->names.at("host app.test.").endpoints.size() == 1; }));
  EXPECT_EQ(state().live_state()->names.at("host app.test.").trouble, "");
}

TEST_F(NameWatchTest, TheRecordGoesWithTheLastPoolThatNeedsIt) {
  ASSERT_TRUE(becomes("127.0.0.1", true));
  ASSERT_EQ(host.put_config(edge_yaml()).status, 200);
  EXPECT_TRUE(pump(loop, [&] { return state().live_state()->names.empty() && state().live_state()->health.empty(); }));
}

TEST_F(NameWatchTest, AServerThatLeftAForwardersPoolKeepsItsFlowsAndGetsNoNewWork) {
  put("vips:\n  - {name: v, addresses: [192.0.2.9]}\nservices:\n  - {name: s, vip: v, port: 80, pool: origins}\n");
  ASSERT_TRUE(becomes("127.0.0.1", true));
  names.set("app.test", 1, {address_record("127.0.0.2")});
  const auto first = [&] { return state().snapshot()->pools[0].backends[0]; };
  EXPECT_TRUE(pump(loop, [&] { return first().state == BackendState::draining; })) << first().why;
  EXPECT_FALSE(state().snapshot()->usable(0, 0));
  EXPECT_TRUE(has_verdict("127.0.0.1")) << "it is probed on";
  put();
  EXPECT_TRUE(pump(loop, [&] { return !has_verdict("127.0.0.1"); })) << "no forwarder has flows to keep";
}

TEST_F(NameWatchTest, AnotherHostGetsTheServersWithTheirVerdicts) {
  host.options.listen = host.control->tcp_endpoint();
  Host follower(loop, "other");
  follower.options.follow = host.options.listen;
  follower.start();
  const auto theirs = [&] { return follower.control->host_state().live_state(); };
  EXPECT_TRUE(pump(loop, [&] { return theirs()->names.count("host app.test.") != 0 && theirs()->health.size() == 2; }));
  EXPECT_EQ(theirs()->names, state().live_state()->names);
  EXPECT_EQ(follower.control->host_state().model_with_servers()->pools[0].backends.size(), 2u);
}

TEST_F(NameWatchTest, AnOperatorDrainsOneServerOrAllOfAName) {
  ASSERT_TRUE(becomes("127.0.0.1", true));
  const std::string server = "web%2F127.0.0.1%3A" + std::to_string(live.port);
  for (const std::string& name : {server, std::string("web")}) {
    const HttpResponse put = host.call_json("PUT", "/v1/admin/backend/origins/" + name, {{"state", "drained"}});
    EXPECT_EQ(put.status, 200) << put.body;
  }
  EXPECT_EQ(host.call_json("PUT", "/v1/admin/backend/origins/wob", {{"state", "drained"}}).status, 404);
  const nlohmann::json health = body_of(host.call("GET", "/v1/health"));
  EXPECT_THAT(health["pools"][0]["backends"][1]["why"].get<std::string>(), HasSubstr("drained"));
}

}  // namespace tidegate::testing::name_watch_test
