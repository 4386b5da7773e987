// SPDX-License-Identifier: Apache-2.0
#include "conf/model/steer.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/model/zone.h"
#include "dns/steer/steer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "dns/query/explain.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::steer_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr uint16_t kTxt = 16;

// One client of a crowd in 10.1.0.0/16: 256 networks, and a new window of the draw for each 256 clients.
std::string client_of_crowd(Edge& edge, uint32_t number) {
  edge.worker().now_s = 1'700'000'000 + number / 256 * DrawKey::kWindowS;
  return "10.1." + std::to_string(number % 256) + ".1";
}

// Two sites with one VIP each, a pool behind each VIP, and a steer between them.
class Steering : public ::testing::Test {
 protected:
  Steering() {
    edge_.add_zone("example.test.", kZone);
    eu_ = edge_.add_site("eu", 50.11, 8.68);
    us_ = edge_.add_site("us", 40.71, -74.0);
    vip_eu_ = edge_.add_vip("vip-eu", eu_, {"203.0.113.1", "2001:db8:1::1"});
    vip_us_ = edge_.add_vip("vip-us", us_, {"203.0.113.2", "2001:db8:2::1"});
    pool_eu_ = edge_.add_pool("pool-eu", {{"e1", "10.0.0.1"}, {"e2", "10.0.0.2"}}, true);
    pool_us_ = edge_.add_pool("pool-us", {{"u1", "10.0.1.1"}}, true);
    edge_.add_service(vip_eu_, pool_eu_);
    edge_.add_service(vip_us_, pool_us_);
    edge_.add_network("10.1.0.0/16", eu_);
    edge_.add_network("10.2.0.0/16", Location{37.77, -122.4});
    edge_.model().geo.default_site = eu_;
    for (const auto& [pool, backend] : {std::pair{"pool-eu", "e1"}, {"pool-eu", "e2"}, {"pool-us", "u1"}}) {
      edge_.live_state().health[backend_key(pool, backend)] = {true, "", 0};
    }
  }
  Steer& steer(const std::string& name, SteerPolicy policy) {
    return edge_.add_steer(name, policy, {to_vip(vip_eu_), to_vip(vip_us_)});
  }
  std::vector<std::string> ask(const std::string& client, const std::string& name = "www.example.test") {
    return edge_.ask(name, rrtype::kA, client).addresses();
  }

  Edge edge_;
  uint32_t eu_, us_, vip_eu_, vip_us_, pool_eu_, pool_us_;
};

TEST_F(Steering, NearestSendsEachClientToItsSiteInBothFamilies) {
  steer("www.example.test.", SteerPolicy::nearest).ttl_s = 5;
  EXPECT_THAT(edge_.ask("www.example.test", rrtype::kA, "10.1.0.1").answers(),
              ElementsAre("www.example.test. 5 IN A 203.0.113.1"));
  EXPECT_THAT(ask("10.2.0.1"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(edge_.ask("www.example.test", rrtype::kAaaa, "10.2.0.1").addresses(), ElementsAre("2001:db8:2::1"));
  EXPECT_THAT(ask("198.51.100.1"), ElementsAre("203.0.113.1")) << "the default site";
  EXPECT_THAT(ask("2001:db8:9::9"), ElementsAre("203.0.113.1"));
}

TEST_F(Steering, APoolWithANameAnswersWithTheServersThatWereFound) {
  const uint32_t pool = edge_.add_pool("named", {{"web", "10.0.2.1"}}, false);
  Backend& web = edge_.model().pools[pool].backends[0];
  web.addresses.clear();
  web.srv = "_http._tcp.web.test";
  edge_.add_steer("found.example.test.", SteerPolicy::multivalue, {{.what = TargetPool{pool}}});
  const auto found = [&](std::vector<NamedEndpoint> endpoints) {
    edge_.live_state().names["srv _http._tcp.web.test"] = {std::move(endpoints), ""};
    edge_.changed(false);
    return ask("10.1.0.1", "found.example.test");
  };
  EXPECT_THAT(ask("10.1.0.1", "found.example.test"), IsEmpty()) << "not looked up yet";
  const auto at = [](const char* endpoint, uint16_t priority) {
    return NamedEndpoint{*Endpoint::parse(endpoint), priority, 1};
  };
  EXPECT_THAT(found({at("10.0.2.1:80", 1), at("10.0.2.2:80", 1), at("10.0.2.3:80", 2)}),
              UnorderedElementsAre("10.0.2.1", "10.0.2.2"))
      << "the third waits for its turn";
  edge_.drain("backend/named/web/10.0.2.1:80");
  EXPECT_THAT(found({at("10.0.2.1:80", 1), at("10.0.2.3:80", 2)}), ElementsAre("10.0.2.3"));
}

TEST_F(Steering, ASteerReplacesTheZonesAddressesAndNothingElse) {
  steer("www.example.test.", SteerPolicy::nearest);
  steer("mail.example.test.", SteerPolicy::nearest);
  steer("example.test.", SteerPolicy::nearest);
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.1"));
  EXPECT_THAT(ask("10.1.0.1", "example.test"), ElementsAre("203.0.113.1"));
  EXPECT_THAT(edge_.ask("example.test", rrtype::kMx).answers(), SizeIs(1));
  const Answer no_data = edge_.ask("www.example.test", kTxt);
  EXPECT_EQ(no_data.rcode(), 0);
  EXPECT_THAT(no_data.authorities(), SizeIs(1));
}

TEST_F(Steering, ASteerBringsItsNameAndThoseAboveIntoExistence) {
  steer("deep.new.example.test.", SteerPolicy::nearest);
  EXPECT_THAT(ask("10.2.0.1", "deep.new.example.test"), ElementsAre("203.0.113.2"));
  EXPECT_EQ(edge_.ask("new.example.test", kTxt).rcode(), 0) << "an empty non-terminal... which exists";
  EXPECT_EQ(edge_.ask("deep.new.example.test", kTxt).rcode(), 0);
  EXPECT_EQ(edge_.ask("other.deep.new.example.test", rrtype::kA).rcode(), 3);
  EXPECT_THAT(ask("10.2.0.1", "DEEP.New.example.test"), ElementsAre("203.0.113.2"));
}

TEST_F(Steering, AWildcardSteerAndTheZonesNamesRespectEachOther) {
  steer("*.cdn.example.test.", SteerPolicy::nearest);
  steer("exact.wild.example.test.", SteerPolicy::nearest);
  EXPECT_THAT(ask("10.2.0.1", "any.cdn.example.test"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(ask("10.2.0.1", "exact.wild.example.test"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(ask("10.2.0.1", "x.wild.example.test"), ElementsAre("192.0.2.99"));
  EXPECT_EQ(edge_.ask("x.exact.wild.example.test", rrtype::kA).rcode(), 3)
      << "the steer's name is the closest encloser";
}

TEST_F(Steering, AnAliasLeadsToASteer) {
  steer("www.example.test.", SteerPolicy::nearest).ttl_s = 5;
  EXPECT_THAT(
      edge_.ask("alias.example.test", rrtype::kA, "10.2.0.1").answers(),
      ElementsAre("alias.example.test. 300 IN CNAME www.example.test.", "www.example.test. 5 IN A 203.0.113.2"));
}

TEST_F(Steering, ASiteWhosePoolIsDownLosesItsClientsAndGetsThemBack) {
  steer("www.example.test.", SteerPolicy::nearest);
  edge_.say_health("pool-eu", "e1", false);
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.1")) << "one backend is still up";
  edge_.say_health("pool-eu", "e2", false);
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.2"));
  edge_.say_health("pool-eu", "e1", true);
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.1"));
}

TEST_F(Steering, ADrainedSiteLeavesTheAnswer) {
  steer("www.example.test.", SteerPolicy::nearest);
  edge_.drain_site("eu");
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.2"));
}

TEST_F(Steering, WhenAllAreDownTheConfiguredPolicyDecides) {
  steer("open.example.test.", SteerPolicy::nearest);
  steer("closed.example.test.", SteerPolicy::nearest).all_down = AllDown::closed;
  edge_.say_health("pool-eu", "e1", false);
  edge_.say_health("pool-eu", "e2", false);
  edge_.say_health("pool-us", "u1", false);
  EXPECT_THAT(ask("10.2.0.1", "open.example.test"), ElementsAre("203.0.113.2"));
  EXPECT_EQ(edge_.worker().tally.failed_open.load(), 1U);
  const Answer closed = edge_.ask("closed.example.test", rrtype::kA, "10.2.0.1");
  EXPECT_EQ(closed.rcode(), 2);
  EXPECT_EQ(edge_.count(QueryOutcome::steer_closed), 1U);
  edge_.drain_site("us");
  EXPECT_THAT(ask("10.2.0.1", "open.example.test"), ElementsAre("203.0.113.1"))
      << "what an operator took out stays out";
}

TEST_F(Steering, FailoverKeepsToTheFirstThatIsUp) {
  steer("www.example.test.", SteerPolicy::failover);
  EXPECT_THAT(ask("10.2.0.1"), ElementsAre("203.0.113.1"));
  edge_.drain_site("eu");
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.2"));
}

TEST_F(Steering, WeightsShareOutTheAnswers) {
  auto& weighted = steer("www.example.test.", SteerPolicy::weighted);
  weighted.targets[0].weight = 75;
  weighted.targets[1].weight = 25;
  std::map<std::string, int> seen;
  for (uint32_t i = 0; i < 8000; ++i) {
    const auto addresses = ask(client_of_crowd(edge_, i));
    ASSERT_THAT(addresses, SizeIs(1));
    ++seen[addresses.front()];
  }
  EXPECT_NEAR(seen["203.0.113.1"], 6000, 200);  // five standard deviations are 194
  EXPECT_NEAR(seen["203.0.113.2"], 2000, 200);
}

TEST_F(Steering, AWeightOfZeroIsNeverDrawn) {
  auto& weighted = steer("www.example.test.", SteerPolicy::weighted);
  weighted.targets[0].weight = 0;
  for (int i = 0; i < 200; ++i) EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.2"));
}

TEST_F(Steering, AFamilyWhoseTargetsAllWeighNothingHasNoDataAndIsNoFailure) {
  const uint32_t v4_only = edge_.add_vip("v4-only", eu_, {"203.0.113.9"});
  edge_.add_steer("mixed.example.test.", SteerPolicy::weighted, {to_vip(v4_only, 100), to_vip(vip_us_, 0)});
  edge_.add_steer("none.example.test.", SteerPolicy::weighted, {to_vip(vip_eu_, 0), to_vip(vip_us_, 0)});
  EXPECT_THAT(ask("10.1.0.1", "mixed.example.test"), ElementsAre("203.0.113.9"));
  for (const auto& [name, type] :
       {std::pair("mixed.example.test", rrtype::kAaaa), std::pair("none.example.test", rrtype::kA)}) {
    const Answer no_data = edge_.ask(name, type, "10.1.0.1");
    EXPECT_EQ(no_data.rcode(), 0) << name;
    EXPECT_THAT(no_data.authorities(), SizeIs(1)) << name;
  }
}

TEST_F(Steering, APoolAnswersWithItsUsableBackends) {
  edge_.add_steer("pool.example.test.", SteerPolicy::failover, {to_pool(pool_eu_), to_pool(pool_us_)});
  EXPECT_THAT(ask("10.1.0.1", "pool.example.test"), ElementsAre("10.0.0.1", "10.0.0.2"));
  edge_.say_health("pool-eu", "e1", false);
  EXPECT_THAT(ask("10.1.0.1", "pool.example.test"), ElementsAre("10.0.0.2"));
  edge_.say_health("pool-eu", "e2", false);
  EXPECT_THAT(ask("10.1.0.1", "pool.example.test"), ElementsAre("10.0.1.1"))
      << "the pool's own fail-open does not hold the client";
}

// For 8,000 clients: how many are answered with each address first.
std::map<std::string, int> first_addresses(Edge& edge, const std::string& name) {
  std::map<std::string, int> first;
  for (uint32_t i = 0; i < 8'000; ++i) {
    const std::string record = edge.ask(name, rrtype::kA, client_of_crowd(edge, i)).answers().at(0);
    ++first[record.substr(record.rfind(' ') + 1)];
  }
  return first;
}

TEST_F(Steering, TargetsOfOneSiteShareItsCrowdByWeight) {
  const uint32_t other = edge_.add_vip("vip-eu2", eu_, {"203.0.113.11"});
  edge_
      .add_steer("crowd.example.test.", SteerPolicy::nearest,
                 {to_vip(vip_eu_, 300), to_vip(other, 100), to_vip(vip_us_, 900)})
      .max_answers = 1;
  auto seen = first_addresses(edge_, "crowd.example.test");
  EXPECT_THAT(seen, SizeIs(2)) << "the other site has no part in it";
  EXPECT_NEAR(seen["203.0.113.1"], 6000, 200);  // five standard deviations are 194
  EXPECT_NEAR(seen["203.0.113.11"], 2000, 200);
}

TEST_F(Steering, BackendsOfARankShareItsCrowdByWeightAndOrdersRotate) {
  const uint32_t pool = edge_.add_pool("weighted", {{"a", "10.8.0.1"}, {"b", "10.8.0.2"}, {"c", "10.8.0.3"}}, false);
  edge_.model().pools[pool].backends[0].weight = 200;
  edge_.add_steer("rank.example.test.", SteerPolicy::failover, {to_pool(pool), to_vip(vip_us_)});
  auto seen = first_addresses(edge_, "rank.example.test");
  EXPECT_NEAR(seen["10.8.0.1"], 4000, 225);
  EXPECT_NEAR(seen["10.8.0.2"], 2000, 195);
  EXPECT_NEAR(seen["10.8.0.3"], 2000, 195);
  EXPECT_THAT(ask("10.1.0.1", "rank.example.test"), ElementsAre("10.8.0.1", "10.8.0.2", "10.8.0.3"))
      << "each once: drawn without replacement";
}

TEST_F(Steering, ADrawIsOneNetworksForAWindow) {
  std::vector<SteerTarget> vips;
  for (int i = 0; i < 16; ++i)
    vips.push_back(to_vip(edge_.add_vip("v" + std::to_string(i), eu_, {"203.0.113." + std::to_string(100 + i)})));
  edge_.add_steer("crowd.example.test.", SteerPolicy::nearest, vips).max_answers = 16;
  const auto order = [](Edge& edge, const std::string& client, uint32_t now_s) {
    edge.worker().now_s = now_s;
    return edge.ask("crowd.example.test", rrtype::kA, client).answers();
  };
  constexpr uint32_t kNowS = 1'700'000'000;
  const auto first = order(edge_, "10.1.7.9", kNowS);
  EXPECT_EQ(order(edge_, "10.1.7.200", kNowS), first) << "the same /24";
  Worker another(HashKey{7, 8});  // of another server, started at another time
  another.now_s = kNowS;
  std::vector<uint8_t> out(kMaxUdpPayload);
  out.resize(answer(make_query("crowd.example.test", rrtype::kA), out,
                    {*IpAddress::parse("10.1.7.9"), QueryTransport::udp}, edge_.tables(), another));
  EXPECT_EQ(read_answer(out).answers(), first) << "another server";
  EXPECT_NE(order(edge_, "10.1.8.9", kNowS), first) << "another network";
  uint32_t changes = 0;
  for (uint32_t s = 1; s <= 10 * DrawKey::kWindowS; ++s) {
    changes += order(edge_, "10.1.7.9", kNowS + s) != order(edge_, "10.1.7.9", kNowS + s - 1) ? 1 : 0;
  }
  EXPECT_EQ(changes, 10U) << "once a window";
  EXPECT_EQ(order(edge_, "2001:db8:0:1::1", kNowS), order(edge_, "2001:db8:0:ff::1", kNowS)) << "the same /56";
}

TEST_F(Steering, AnswersAreBounded) {
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 100; ++i) many.emplace_back("b" + std::to_string(i), "10.9.0." + std::to_string(i));
  const uint32_t pool = edge_.add_pool("many", many, false);
  edge_.add_steer("four.example.test.", SteerPolicy::failover, {to_pool(pool)});
  edge_.add_steer("all.example.test.", SteerPolicy::failover, {to_pool(pool)}).max_answers = 1000;
  EXPECT_THAT(ask("10.1.0.1", "four.example.test"), SizeIs(4));
  EXPECT_THAT(edge_.ask("all.example.test", rrtype::kA, "10.1.0.1", Edns{}).addresses(), SizeIs(kMaxAnswers));
}

TEST_F(Steering, ATargetWithoutAnAddressOfTheFamilyIsPassedOver) {
  const uint32_t v4_only = edge_.add_vip("v4-only", eu_, {"203.0.113.9"});
  edge_.add_steer("mixed.example.test.", SteerPolicy::nearest, {to_vip(v4_only), to_vip(vip_us_)});
  edge_.add_steer("four.example.test.", SteerPolicy::nearest, {to_vip(v4_only)});
  EXPECT_THAT(edge_.ask("mixed.example.test", rrtype::kAaaa, "10.1.0.1").addresses(), ElementsAre("2001:db8:2::1"));
  const Answer no_data = edge_.ask("four.example.test", rrtype::kAaaa, "10.1.0.1");
  EXPECT_EQ(no_data.rcode(), 0);
  EXPECT_THAT(no_data.authorities(), SizeIs(1));
}

TEST_F(Steering, AClientSubnetDecidesAndComesBackWithItsScope) {
  steer("www.example.test.", SteerPolicy::nearest);
  steer("fixed.example.test.", SteerPolicy::failover);
  const auto scope_of = [&](const std::string& name, const std::string& subnet) {
    const Answer answer = edge_.ask(name, rrtype::kA, "10.1.0.1", Edns{.options = {subnet_option(subnet)}});
    const auto options = options_of(answer);
    EXPECT_EQ(options->front().code, 8);
    const Option sent = subnet_option(subnet, static_cast<uint8_t>(options->front().data[3]));
    EXPECT_EQ(options->front().data, sent.data) << "family, source and address come back as sent";
    return std::pair{answer.addresses(), static_cast<int>(static_cast<uint8_t>(options->front().data[3]))};
  };
  EXPECT_EQ(scope_of("www.example.test", "10.2.3.0/24"), std::pair(std::vector<std::string>{"203.0.113.2"}, 16));
  EXPECT_EQ(scope_of("www.example.test", "10.2.3.4/32").second, 16);
  EXPECT_EQ(scope_of("www.example.test", "10.0.0.0/8").second, 15) << "longer than sent: the answer differs within";
  EXPECT_EQ(scope_of("www.example.test", "198.51.100.0/24").second, 1);
  EXPECT_EQ(scope_of("www.example.test", "2400::/32").second, 6) << "nothing but 6to4's, which are IPv4's";
  EXPECT_EQ(scope_of("www.example.test", "0.0.0.0/0"), std::pair(std::vector<std::string>{"203.0.113.1"}, 0))
      << "a client that does not want to be placed; the sender is";
  EXPECT_EQ(scope_of("fixed.example.test", "10.2.3.0/24").second, 0) << "geography has no say";
  EXPECT_EQ(scope_of("ns1.example.test", "10.2.3.0/24").second, 0);
  EXPECT_EQ(edge_.worker().tally.with_subnet.load(), 8U);
}

TEST_F(Steering, ASteerThatSendsAllToOnePlaceSaysScopeZero) {
  edge_.add_steer("one.example.test.", SteerPolicy::nearest, {to_vip(vip_us_)});
  edge_.add_steer("pool.example.test.", SteerPolicy::nearest, {to_pool(pool_eu_)});
  const uint32_t v4_only = edge_.add_vip("v4-only", eu_, {"203.0.113.9"});
  edge_.add_steer("mixed.example.test.", SteerPolicy::nearest, {to_vip(v4_only), to_vip(vip_us_)});
  const auto scope_of = [&](const std::string& name, uint16_t type) {
    const Answer answer = edge_.ask(name, type, "10.1.0.1", Edns{.options = {subnet_option("10.2.3.0/24")}});
    return static_cast<int>(options_of(answer)->front().data[3]);
  };
  EXPECT_EQ(scope_of("one.example.test", rrtype::kA), 0);
  EXPECT_EQ(scope_of("pool.example.test", rrtype::kA), 0) << "backends without a site";
  EXPECT_EQ(scope_of("mixed.example.test", rrtype::kA), 16);
  EXPECT_EQ(scope_of("mixed.example.test", rrtype::kAaaa), 0) << "one site has that family";
  EXPECT_THAT(ask("10.1.0.1", "one.example.test"), ElementsAre("203.0.113.2"));
  const auto told = explain(*IpAddress::parse("10.2.0.1"), "one.example.test", "A", edge_.tables(), edge_.worker());
  EXPECT_EQ(told["geo"]["scope"], 0);
}

// RFC 8914: what explain says is also in the answer, if it has an OPT record.
TEST_F(Steering, AnExtendedErrorSaysWhatExplainSays) {
  steer("www.example.test.", SteerPolicy::nearest);
  steer("closed.example.test.", SteerPolicy::nearest).all_down = AllDown::closed;
  const auto said = [&](const std::string& name, const std::string& client) {
    const auto options = *options_of(edge_.ask(name, rrtype::kA, client, Edns{}));
    if (options.empty()) return std::string("nothing");
    EXPECT_THAT(options, SizeIs(1));
    EXPECT_EQ(options.front().code, 15);
    EXPECT_EQ(options.front().data.substr(0, 2), std::string(2, '\0')) << "Other";
    const std::string text = options.front().data.substr(2);
    const auto told = explain(*IpAddress::parse(client), name, "A", edge_.tables(), edge_.worker());
    EXPECT_THAT(told["reason"].get<std::string>(), HasSubstr(text));
    return text;
  };
  EXPECT_EQ(said("www.example.test", "10.1.0.1"), "nothing") << "a known network";
  EXPECT_EQ(said("www.example.test", "198.51.100.1"), "default site: network unknown");
  EXPECT_EQ(said("www.example.test", "2001:db8:9::9"), "default site: network unknown");
  EXPECT_EQ(said("ns1.example.test", "198.51.100.1"), "nothing");
  edge_.say_health("pool-eu", "e1", false);
  edge_.say_health("pool-eu", "e2", false);
  edge_.say_health("pool-us", "u1", false);
  EXPECT_EQ(said("www.example.test", "10.1.0.1"), "all targets down: open");
  EXPECT_EQ(said("closed.example.test", "10.1.0.1"), "all targets down: closed");
  EXPECT_THAT(ask("10.1.0.1"), ElementsAre("203.0.113.1")) << "without EDNS nothing is added";
}

TEST_F(Steering, AnExtendedErrorsTextGivesWayToRecords) {
  std::vector<std::pair<std::string, std::string>> many;
  for (int i = 0; i < 28; ++i) many.emplace_back("b" + std::to_string(i), "10.9.0." + std::to_string(i));
  const uint32_t pool = edge_.add_pool("many", many, true);
  edge_.add_steer("many.example.test.", SteerPolicy::failover, {to_pool(pool)}).max_answers = 28;
  for (const auto& [backend, address] : many) edge_.live_state().health[backend_key("many", backend)] = {false, "", 0};
  edge_.changed();
  // 12 + 23 + 28 * 16 = 483 bytes, and 17 for an OPT record with an error's code: its text has no room in 512.
  const Answer answer = edge_.ask("many.example.test", rrtype::kA, "10.1.0.1", Edns{.payload = 512});
  EXPECT_THAT(answer.addresses(), SizeIs(28));
  EXPECT_LE(answer.wire.size(), 512U);
  ASSERT_THAT(*options_of(answer), SizeIs(1));
  EXPECT_EQ(options_of(answer)->front().data.size(), 2U);
}

TEST_F(Steering, MalformedClientSubnetsAreFormatErrors) {
  steer("www.example.test.", SteerPolicy::nearest);
  const auto rcode_of = [&](const std::string& data) {
    return edge_.ask("www.example.test", rrtype::kA, "10.1.0.1", Edns{.options = {{8, data}}}).rcode();
  };
  using namespace std::string_literals;
  EXPECT_EQ(rcode_of("\0\1\x18\0\x0a\1\2"s), 0);
  EXPECT_EQ(rcode_of("\0\0\0\0"s), 0) << "family 0 with nothing in it";
  EXPECT_EQ(rcode_of(""s), 1);
  EXPECT_EQ(rcode_of("\0\1\x18"s), 1);
  EXPECT_EQ(rcode_of("\0\1\x18\0\x0a\1"s), 1) << "too few bytes";
  EXPECT_EQ(rcode_of("\0\1\x18\0\x0a\1\2\0"s), 1) << "too many";
  EXPECT_EQ(rcode_of("\0\1\x17\0\x0a\1\3"s), 1) << "bits past the prefix";
  EXPECT_EQ(rcode_of("\0\1\x18\x10\x0a\1\2"s), 1) << "a scope in a query";
  EXPECT_EQ(rcode_of("\0\1\x21\0\x0a\1\2\3\4"s), 1) << "/33";
  EXPECT_EQ(rcode_of("\0\3\x18\0\x0a\1\2"s), 1) << "an unknown family";
  EXPECT_EQ(edge_.count(QueryOutcome::bad_ecs), 8U);
}

TEST_F(Steering, ASteerThatCannotStandRefusesTheSnapshot) {
  const auto refusal = [&](const std::string& name) {
    Edge edge;
    edge.add_zone("example.test.", kZone);
    edge.add_vip("v", edge.add_site("s", 0, 0), {"203.0.113.1"});
    edge.add_steer(name, SteerPolicy::nearest, {to_vip(0)});
    const auto built = edge.build();
    return built ? std::string() : built.error().message;
  };
  EXPECT_THAT(refusal("www.elsewhere.test."), HasSubstr("no zone holds the name"));
  EXPECT_THAT(refusal("x.child.example.test."), HasSubstr("gives the name away at child.example.test."));
  EXPECT_THAT(refusal("x.old.example.test."), HasSubstr("gives the name away at old.example.test."));
  EXPECT_THAT(refusal("alias.example.test."), HasSubstr("is a CNAME"));
  EXPECT_EQ(refusal("www.example.test."), "");
}

TEST_F(Steering, AChangeSharesWhatItDoesNotTouch) {
  steer("www.example.test.", SteerPolicy::nearest);
  const auto before = edge_.build().value();
  edge_.changed();
  const Tables& first = edge_.tables();
  const auto zone = first.authority->zones[0].zone;
  const auto authority = first.authority;
  const auto geo = first.geo;
  EXPECT_EQ(first.digest, before->digest) << "equal tables, equal digest";
  edge_.say_health("pool-eu", "e1", false);
  EXPECT_EQ(edge_.tables().authority, authority) << "a word rebuilds nothing";
  steer("new.example.test.", SteerPolicy::nearest);
  edge_.changed();
  EXPECT_NE(edge_.tables().authority, authority);
  EXPECT_EQ(edge_.tables().authority->zones[0].zone, zone);
  EXPECT_EQ(edge_.tables().geo, geo);
  EXPECT_NE(edge_.tables().digest, before->digest);
}

TEST_F(Steering, ExplainTellsWhyByTheSameDecision) {
  steer("www.example.test.", SteerPolicy::nearest).ttl_s = 5;
  edge_.say_health("pool-us", "u1", false);
  const auto told = explain(*IpAddress::parse("10.2.0.1"), "www.example.test", "A", edge_.tables(), edge_.worker());
  EXPECT_EQ(told["plane"], "dns");
  EXPECT_EQ(told["zone"], "example.test.");
  EXPECT_EQ(told["steer"], "www.example.test.");
  EXPECT_EQ(told["policy"], "nearest");
  EXPECT_EQ(told["geo"]["source"], "networks");
  EXPECT_EQ(told["geo"]["scope"], 16);
  EXPECT_EQ(told["geo"]["order"], nlohmann::json({"us", "eu"}));
  EXPECT_EQ(told["answers"], nlohmann::json({"203.0.113.1"}));
  EXPECT_EQ(told["ttl_s"], 5);
  ASSERT_EQ(told["candidates"].size(), 2U);
  const auto& us = told["candidates"][1];
  EXPECT_EQ(us["target"], "vip/vip-us");
  EXPECT_EQ(us["state"], "down");
  EXPECT_THAT(us["why"].get<std::string>(), HasSubstr("pool pool-us is down"));
  EXPECT_NEAR(us["distance_km"].get<double>(), 4130, 30);
  const auto absent = explain(*IpAddress::parse("10.2.0.1"), "no.example.test", "A", edge_.tables(), edge_.worker());
  EXPECT_EQ(absent["rcode"], "NXDOMAIN");
  EXPECT_THAT(absent["reason"].get<std::string>(), HasSubstr("no such name"));
  EXPECT_TRUE(explain(*IpAddress::parse("10.2.0.1"), "a..b", "A", edge_.tables(), edge_.worker()).contains("error"));
}

}  // namespace tidegate::dns::test::steer_test
