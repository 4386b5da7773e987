// SPDX-License-Identifier: Apache-2.0
// The policies map, sticky and multivalue, the bias of sites, steers within steers, aliases, and overrides of one
// target.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "conf/model.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "dns/limits.h"
#include "dns/query/explain.h"
#include "tests/unit/dns/mmdb_writer.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::steer_policies_test {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

SteerTarget for_clients(SteerTarget target, TargetClients clients) {
  target.clients = std::move(clients);
  return target;
}

SteerTarget at_site(SteerTarget target, uint32_t site) {
  target.site = site;
  return target;
}

class Policies : public ::testing::Test {
 protected:
  Policies() {
    edge_.add_zone("example.test.", kZone);
    for (const auto& [name, latitude, longitude] :
         {std::tuple("eu", 50.11, 8.68), {"us", 40.71, -74.0}, {"ap", 35.68, 139.69}}) {
      const uint32_t site = edge_.add_site(name, latitude, longitude);
      const std::string n = std::to_string(site + 1);
      vips_.push_back(edge_.add_vip(std::string("vip-") + name, site, {"203.0.113." + n, "2001:db8:" + n + "::1"}));
    }
    edge_.add_network("10.1.0.0/16", 0);
    edge_.add_network("10.2.0.0/16", 1);
    edge_.add_network("10.3.0.0/16", 2);
  }

  uint32_t add(const std::string& name, SteerPolicy policy, std::vector<SteerTarget> targets) {
    edge_.add_steer(name + ".example.test.", policy, std::move(targets));
    return static_cast<uint32_t>(edge_.model().steers.size() - 1);
  }
  std::vector<std::string> ask(const std::string& name, const std::string& client, uint16_t type = rrtype::kA) {
    return edge_.ask(name + ".example.test", type, client).addresses();
  }
  int scope_of(const std::string& name, const std::string& subnet) {
    const Answer answer =
        edge_.ask(name + ".example.test", rrtype::kA, "192.0.2.1", Edns{.options = {subnet_option(subnet)}});
    return static_cast<int>(static_cast<uint8_t>(options_of(answer)->front().data[3]));
  }
  nlohmann::json explained(const std::string& name, const std::string& client) {
    return explain(*IpAddress::parse(client), name + ".example.test", "A", edge_.tables(), edge_.worker());
  }

  Edge edge_;
  std::vector<uint32_t> vips_;
};

TEST_F(Policies, AMapSendsClientsByNetworkSystemRegionCountryAndContinent) {
  MmdbWriter places, systems;
  places.add("198.51.100.0/24", std::nullopt, {"NA", "US", "CA", 0});
  places.add("198.51.101.0/24", std::nullopt, {"NA", "US", "NY", 0});
  places.add("198.51.102.0/24", std::nullopt, {"NA", "CA", "", 0});
  places.add("203.0.113.0/24", std::nullopt, {"EU", "DE", "", 0});
  systems.add("198.51.100.128/25", std::nullopt, {"", "", "", 64500});
  const TemporaryFile file(places.bytes()), other(systems.bytes());
  edge_.model().geo.mmdb = file.path();
  edge_.model().geo.other_mmdbs = {other.path()};
  std::vector<uint32_t> vips;
  for (int i = 0; i < 6; ++i)
    vips.push_back(edge_.add_vip("m" + std::to_string(i), kNone, {"192.0.2." + std::to_string(100 + i)}));
  add("m", SteerPolicy::map,
      {for_clients(to_vip(vips[0]), {}), for_clients(to_vip(vips[1]), {{}, {}, {}, {}, {"NA"}}),
       for_clients(to_vip(vips[2]), {{}, {}, {}, {"US"}, {}}),
       for_clients(to_vip(vips[3]), {{}, {}, {"US-CA"}, {}, {}}),
       for_clients(to_vip(vips[4]), {{}, {64500}, {}, {}, {}}),
       for_clients(to_vip(vips[5]), {{*Cidr::parse("198.51.100.192/26")}, {}, {}, {}, {}})});
  EXPECT_THAT(ask("m", "203.0.113.1"), ElementsAre("192.0.2.100")) << "everybody else";
  EXPECT_THAT(ask("m", "198.51.102.1"), ElementsAre("192.0.2.101"));
  EXPECT_THAT(ask("m", "198.51.101.1"), ElementsAre("192.0.2.102"));
  EXPECT_THAT(ask("m", "198.51.100.1"), ElementsAre("192.0.2.103"));
  EXPECT_THAT(ask("m", "198.51.100.129"), ElementsAre("192.0.2.104"));
  EXPECT_THAT(ask("m", "198.51.100.200"), ElementsAre("192.0.2.105"));
  EXPECT_THAT(ask("m", "2002:c633:64c8::1"), ElementsAre("192.0.2.105")) << "6to4 of 198.51.100.200";
  EXPECT_EQ(scope_of("m", "198.51.100.200/32"), 26);
  EXPECT_EQ(scope_of("m", "198.51.101.0/24"), 24);
  EXPECT_EQ(scope_of("m", "198.51.103.0/24"), 24) << "its neighbour is in NA";
  EXPECT_EQ(scope_of("m", "198.51.104.0/24"), 21) << "nobody knows anything of 198.51.104.0/21";
  const auto told = explained("m", "198.51.100.129");
  EXPECT_EQ(told["geo"]["facts"]["country"], "US");
  EXPECT_EQ(told["geo"]["facts"]["region"], "US-CA");
  EXPECT_EQ(told["geo"]["facts"]["asn"], 64500);
  EXPECT_THAT(told["reason"].get<std::string>(), HasSubstr("closest target for the client's network"));
  // Without the most specific target the next one answers.
  edge_.drain(vip_key("m4"));
  EXPECT_THAT(ask("m", "198.51.100.129"), ElementsAre("192.0.2.103"));
  edge_.drain(vip_key("m3"));
  EXPECT_THAT(ask("m", "198.51.100.129"), ElementsAre("192.0.2.102"));
}

TEST_F(Policies, AMapNeverUsesATargetForOthers) {
  add("m", SteerPolicy::map, {for_clients(to_vip(vips_[0]), {{*Cidr::parse("10.1.0.0/16")}, {}, {}, {}, {}})});
  EXPECT_THAT(ask("m", "10.1.0.1"), ElementsAre("203.0.113.1"));
  const Answer answer = edge_.ask("m.example.test", rrtype::kA, "10.2.0.1", Edns{});
  EXPECT_EQ(answer.rcode(), 0);
  EXPECT_THAT(answer.answers(), IsEmpty());
  EXPECT_THAT(answer.authorities(), SizeIs(1)) << "no data, with the SOA";
  ASSERT_THAT(*options_of(answer), SizeIs(1));
  EXPECT_EQ(options_of(answer)->front().data.substr(2), "no target for this network");
  EXPECT_EQ(scope_of("m", "10.2.0.0/24"), 15) << "all but 10.1.0.0/16";
}

TEST_F(Policies, ADatabaseIsRefusedOnlyIfNothingOfItIsUsed) {
  MmdbWriter writer;
  writer.add("198.51.100.0/24", std::nullopt, {"EU", "DE", "", 0});
  const TemporaryFile file(writer.bytes());
  edge_.model().geo.mmdb = file.path();
  add("www", SteerPolicy::nearest, {to_vip(vips_[0]), to_vip(vips_[1])});
  const auto refused = edge_.build();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("it holds no locations"));
  Edge again;
  again.model() = edge_.model();
  again.add_steer("m.example.test.", SteerPolicy::map,
                  {for_clients(to_vip(vips_[0]), {{}, {}, {}, {"FR"}, {}}), to_vip(vips_[1])});
  EXPECT_TRUE(again.build()) << "countries are asked for, though none of this file's";
}

TEST_F(Policies, ASitesBiasDrawsClientsToIt) {
  edge_.add_network("10.9.0.0/16", Location{48.85, -30});  // a bit nearer to eu
  add("www", SteerPolicy::nearest, {to_vip(vips_[0]), to_vip(vips_[1])});
  EXPECT_THAT(ask("www", "10.9.0.1"), ElementsAre("203.0.113.1"));
  edge_.model().sites[1].bias = 50;
  edge_.changed();
  EXPECT_THAT(ask("www", "10.9.0.1"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(ask("www", "10.1.0.1"), ElementsAre("203.0.113.1")) << "its own site stays the first";
  edge_.model().sites[0].bias = 60;
  edge_.changed();
  EXPECT_THAT(ask("www", "10.9.0.1"), ElementsAre("203.0.113.1"));
  edge_.model().sites[0].bias = -60;
  edge_.model().sites[1].bias = 0;
  edge_.changed();
  EXPECT_THAT(ask("www", "10.9.0.1"), ElementsAre("203.0.113.2"));
}

// A client network keeps its target. If one of N targets leaves, only its networks move.
TEST_F(Policies, StickyMovesOnlyTheNetworksOfTheTargetThatLeft) {
  constexpr uint32_t kTargets = 10, kNetworks = 4'000;
  std::vector<SteerTarget> targets;
  for (uint32_t i = 0; i < kTargets; ++i)
    targets.push_back(to_vip(edge_.add_vip("k" + std::to_string(i), 0, {"192.0.2." + std::to_string(i)})));
  add("stick", SteerPolicy::sticky, targets);
  const auto all = [&] {
    std::vector<std::string> got;
    for (uint32_t i = 0; i < kNetworks; ++i) {
      edge_.worker().now_s = 1'700'000'000 + 7 * i;
      const auto addresses = ask("stick", "10." + std::to_string(i / 256) + "." + std::to_string(i % 256) + ".9");
      EXPECT_THAT(addresses, SizeIs(1));
      got.push_back(addresses.at(0));
    }
    return got;
  };
  const auto before = all();
  std::map<std::string, uint32_t> share;
  for (const std::string& address : before) ++share[address];
  EXPECT_THAT(share, SizeIs(kTargets));
  for (const auto& [address, count] : share) EXPECT_NEAR(count, kNetworks / kTargets, 100) << address;
  EXPECT_EQ(all(), before) << "time does not matter";
  EXPECT_EQ(ask("stick", "10.0.7.200"), ask("stick", "10.0.7.9"));
  EXPECT_EQ(scope_of("stick", "10.0.7.0/24"), 24);
  EXPECT_EQ(scope_of("stick", "2001:db8:7::/48"), 56);
  const auto expect_few_moves = [&](const std::vector<std::string>& after) {
    uint32_t moved = 0;
    for (uint32_t i = 0; i < kNetworks; ++i) {
      if (after[i] == before[i]) continue;
      EXPECT_EQ(before[i], "192.0.2.3") << "a network of a target that stayed";
      ++moved;
    }
    EXPECT_EQ(moved, share["192.0.2.3"]);
    EXPECT_LE(moved, kNetworks / kTargets + kNetworks / 100);
  };
  edge_.drain(vip_key("k3"));
  expect_few_moves(all());
  edge_.live_state().overrides.clear();
  edge_.model().steers.back().targets.erase(edge_.model().steers.back().targets.begin() + 3);
  edge_.changed();
  expect_few_moves(all());
}

TEST_F(Policies, StickyTargetsShareByWeightAndBothFamiliesAgree) {
  add("stick", SteerPolicy::sticky, {to_vip(vips_[0], 300), to_vip(vips_[1], 100), to_vip(vips_[2], 0)});
  std::map<std::string, uint32_t> share;
  for (uint32_t i = 0; i < 4'000; ++i) {
    const std::string client = "10." + std::to_string(i / 256) + "." + std::to_string(i % 256) + ".9";
    const std::string v4 = ask("stick", client).at(0), v6 = ask("stick", client, rrtype::kAaaa).at(0);
    EXPECT_EQ(v4 == "203.0.113.1", v6 == "2001:db8:1::1");
    ++share[v4];
  }
  EXPECT_THAT(share, SizeIs(2));
  EXPECT_NEAR(share["203.0.113.1"], 3'000, 140);  // five standard deviations are 137
}

TEST_F(Policies, MultivalueAnswersWithAllThatAreUp) {
  add("multi", SteerPolicy::multivalue, {to_vip(vips_[0]), to_vip(vips_[1]), to_vip(vips_[2])});
  EXPECT_THAT(ask("multi", "10.1.0.1"), ElementsAre("203.0.113.1", "203.0.113.2", "203.0.113.3"));
  EXPECT_EQ(scope_of("multi", "10.1.0.0/16"), 0);
  std::set<std::string> first;
  for (int i = 0; i < 100; ++i)
    first.insert(edge_.ask("multi.example.test", rrtype::kA, "10.1." + std::to_string(i) + ".1").answers().at(0));
  EXPECT_THAT(first, SizeIs(3)) << "the order changes";
  edge_.drain(vip_key("vip-us"));
  EXPECT_THAT(ask("multi", "10.1.0.1"), ElementsAre("203.0.113.1", "203.0.113.3"));
}

TEST_F(Policies, AnOverrideTakesOneTargetOutOfOneSteer) {
  add("a", SteerPolicy::failover, {to_vip(vips_[0]), to_vip(vips_[1])});
  add("b", SteerPolicy::failover, {to_vip(vips_[0]), to_vip(vips_[1])});
  edge_.drain(target_key("a.example.test.", "vip:vip-eu"));
  EXPECT_THAT(ask("a", "10.1.0.1"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(ask("b", "10.1.0.1"), ElementsAre("203.0.113.1"));
  EXPECT_EQ(explained("a", "10.1.0.1")["candidates"][0]["why"], "the target is drained");
  edge_.drain(vip_key("vip-eu"));
  EXPECT_THAT(ask("b", "10.1.0.1"), ElementsAre("203.0.113.2"));
  EXPECT_EQ(explained("b", "10.1.0.1")["candidates"][0]["state"], "drained");
  EXPECT_EQ(explained("b", "10.1.0.1")["candidates"][0]["why"], "the vip is drained");
  edge_.drain(target_key("b.example.test.", "vip:vip-us"));
  EXPECT_EQ(edge_.ask("b.example.test", rrtype::kA, "10.1.0.1").rcode(), 2)
      << "what an operator took out stays out, though all_down is open";
}

// nearest within map within weighted; each level's decision narrows the scope.
TEST_F(Policies, SteersNest) {
  const uint32_t near = add("near", SteerPolicy::nearest, {to_vip(vips_[0]), to_vip(vips_[1])});
  const uint32_t mapped =
      add("mapped", SteerPolicy::map,
          {for_clients(to_vip(vips_[2]), {{*Cidr::parse("10.1.128.0/17")}, {}, {}, {}, {}}), to_steer(near)});
  add("outer", SteerPolicy::weighted, {to_steer(mapped, 100), to_vip(vips_[2], 0)});
  edge_.model().steers[near].ttl_s = 7;
  edge_.changed();
  EXPECT_THAT(ask("outer", "10.1.0.1"), ElementsAre("203.0.113.1"));
  EXPECT_THAT(ask("outer", "10.2.0.1"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(ask("outer", "10.1.200.1"), ElementsAre("203.0.113.3"));
  EXPECT_THAT(edge_.ask("outer.example.test", rrtype::kA, "10.1.0.1").answers(),
              ElementsAre("outer.example.test. 7 IN A 203.0.113.1"))
      << "the smallest TTL on the way";
  EXPECT_EQ(scope_of("outer", "10.1.0.0/17"), 17);
  EXPECT_EQ(scope_of("outer", "10.2.0.0/17"), 16);
  EXPECT_EQ(scope_of("near", "10.1.0.0/17"), 15) << "all but 10.2.0.0/16 and 10.3.0.0/16 prefer eu to us";
  EXPECT_THAT(explained("outer", "10.1.0.1")["candidates"][0]["target"], "steer/mapped.example.test");
}

// Explain describes the way through inner steers step by step, in the words of each level.
TEST_F(Policies, ExplainFollowsSteersWithinSteers) {
  const uint32_t near = add("near", SteerPolicy::nearest, {to_vip(vips_[0]), to_vip(vips_[1])});
  const uint32_t gone = add("gone", SteerPolicy::failover, {to_alias("late.elsewhere.test.")});
  const uint32_t order = add("order", SteerPolicy::failover, {to_steer(gone), to_steer(near)});
  add("outer", SteerPolicy::weighted, {to_steer(order)});
  const auto lines = [&](const std::string& client) {
    std::vector<std::string> told;
    const nlohmann::json steps = explained("outer", client)["steps"];
    for (const auto& step : steps) {
      told.push_back(std::to_string(step["level"].get<int>()) + " " + step["text"].get<std::string>());
    }
    return told;
  };
  EXPECT_THAT(
      lines("10.2.0.1"),
      ElementsAre("0 outer.example.test (weighted): a target drawn by weight for the client's network, until the "
                  "next draw",
                  "1 steer/order.example.test is taken",
                  "1 order.example.test (failover): the first target in order that is usable",
                  "2 steer/gone.example.test has no address to give",
                  "2 gone.example.test (failover): the first target in order that is usable",
                  "3 alias/late.elsewhere.test has no address to give", "2 steer/near.example.test is taken",
                  "2 near.example.test (nearest): the nearest site that has a usable target", "3 vip/vip-us is taken"));
  const auto steps = explained("outer", "10.2.0.1")["steps"];
  EXPECT_EQ(steps[7]["candidates"].size(), 2U) << "those of each steer within";
  EXPECT_FALSE(steps[0].contains("candidates")) << "those of the first are told beside the steps";
  EXPECT_EQ(steps[3]["gave"], false);
  edge_.drain(vip_key("vip-us"));
  edge_.changed(false);
  EXPECT_THAT(lines("10.2.0.1").back(), "3 vip/vip-eu is taken") << "the answer and its explanation are one decision";
  EXPECT_EQ(explained("outer", "10.2.0.1")["answers"], nlohmann::json({"203.0.113.1"}));
}

TEST_F(Policies, ExplainSaysThatASteerFailsOpenInTheWordsOfTheAnswer) {
  const uint32_t pool = edge_.add_pool("pool", {{"b", "10.0.0.1"}}, true);
  const uint32_t inner = add("inner", SteerPolicy::failover, {to_pool(pool)});
  add("outer", SteerPolicy::failover, {to_steer(inner)});
  edge_.say_health("pool", "b", false);
  const auto told = explained("outer", "10.1.0.1");
  EXPECT_THAT(told["steps"].dump(), HasSubstr("all targets down: open"));
  EXPECT_THAT(told["reason"].get<std::string>(), HasSubstr("all targets down: open"));
}

// --- shed

class Shedding : public Policies {
 protected:
  // A crowd in 10.1.0.0/16. Its nearest site is eu, then us, then ap.
  std::map<std::string, int> crowd(const std::string& name) {
    std::map<std::string, int> got;
    for (int i = 0; i < 256; ++i) ++got[ask(name, "10.1." + std::to_string(i) + ".1").at(0)];
    return got;
  }
  void shed(const std::string& site, uint32_t permille) {
    edge_.live_state().loads[site_key(site)] = {93, permille, 0};
    edge_.changed(false);
  }
};

TEST_F(Shedding, ALoadedSiteSendsItsShareToTheNextOne) {
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1]), to_vip(vips_[2])});
  EXPECT_EQ(crowd("s")["203.0.113.1"], 256);
  shed("eu", 300);
  const auto got = crowd("s");
  EXPECT_NEAR(got.at("203.0.113.2"), 77, 25);
  EXPECT_EQ(got.count("203.0.113.3"), 0U) << "the next one has room";
  shed("us", 500);
  EXPECT_NEAR(crowd("s")["203.0.113.3"], 38, 20) << "half of those that eu sends on";
}

TEST_F(Shedding, ClientsThatWereSentOnStayAwayWhileTheShareGrows) {
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1])});
  std::set<std::string> away;
  for (const uint32_t permille : {100U, 200U, 400U, 800U}) {
    shed("eu", permille);
    std::set<std::string> now;
    for (int i = 0; i < 256; ++i) {
      const std::string client = "10.1." + std::to_string(i) + ".1";
      edge_.worker().now_s += 60;  // the draw's window does not matter
      if (ask("s", client).at(0) == "203.0.113.2") now.insert(client);
    }
    EXPECT_TRUE(std::includes(now.begin(), now.end(), away.begin(), away.end())) << permille;
    away = now;
  }
}

TEST_F(Shedding, WhereNobodyHasRoomAllSitesShare) {
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1]), to_vip(vips_[2])});
  for (const char* site : {"eu", "us", "ap"}) shed(site, 950);
  const auto got = crowd("s");
  EXPECT_EQ(got.size(), 3U);
  for (const auto& [address, clients] : got) EXPECT_NEAR(clients, 85, 35) << address;
}

TEST_F(Shedding, AnUnusableSiteCannotTakeWhatIsShed) {
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1])});
  shed("eu", 900);
  edge_.drain(vip_key("vip-us"));
  edge_.changed(false);
  EXPECT_EQ(crowd("s")["203.0.113.1"], 256) << "better a loaded site than none";
}

TEST_F(Shedding, OtherPoliciesAndIdleEdgesDoNotLookAtLoad) {
  add("near", SteerPolicy::nearest, {to_vip(vips_[0]), to_vip(vips_[1])});
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1])});
  const int before = scope_of("s", "10.1.7.0/24");
  EXPECT_EQ(before, scope_of("near", "10.1.7.0/24")) << "nothing is shed: the scope of nearest";
  EXPECT_TRUE(edge_.tables().shares.empty());
  shed("us", 500);
  EXPECT_EQ(scope_of("s", "10.1.7.0/24"), before) << "the first site has room: nobody asks the second";
  EXPECT_EQ(scope_of("s", "10.2.7.0/24"), 24) << "the client's network decides";
  EXPECT_EQ(crowd("near")["203.0.113.1"], 256);
  shed("eu", 950);
  EXPECT_EQ(crowd("near")["203.0.113.1"], 256);
}

TEST_F(Shedding, ThatLoadIsShedIsSaidOfUnknownNetworksToo) {
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1])});
  edge_.model().geo.default_site = 0;
  edge_.changed();
  shed("eu", 950);
  std::set<std::string> said;
  for (int i = 0; i < 64; ++i) {
    const Answer answer = edge_.ask("s.example.test", rrtype::kA, "198.51." + std::to_string(i) + ".1", Edns{});
    said.insert(answer.addresses().at(0) + ": " + options_of(answer)->at(0).data.substr(2));
  }
  EXPECT_THAT(said, UnorderedElementsAre("203.0.113.1: default site: network unknown",
                                         "203.0.113.2: a nearer site sheds load"));
}

TEST_F(Shedding, TheAnswerExplainAndACounterSayThatLoadIsShed) {
  add("s", SteerPolicy::shed, {to_vip(vips_[0]), to_vip(vips_[1])});
  shed("eu", 950);
  std::string client;
  for (int i = 0; i < 256 && client.empty(); ++i) {
    const std::string one = "10.1." + std::to_string(i) + ".1";
    if (ask("s", one).at(0) == "203.0.113.2") client = one;
  }
  ASSERT_FALSE(client.empty());
  const uint64_t counted = edge_.worker().tally.shed.load();
  const auto options = *options_of(edge_.ask("s.example.test", rrtype::kA, client, Edns{}));
  ASSERT_THAT(options, SizeIs(1));
  EXPECT_EQ(options[0].data.substr(2), "a nearer site sheds load");
  EXPECT_EQ(edge_.worker().tally.shed.load(), counted + 1);
  const auto told = explained("s", client);
  EXPECT_THAT(told["reason"].get<std::string>(), HasSubstr("a nearer site sheds load"));
  EXPECT_EQ(told["candidates"][0]["why"], "sheds 95.0 % of its clients, decided at a load of 93 %");
  EXPECT_THAT(told["steps"][1]["text"].get<std::string>(),
              HasSubstr("site eu sheds 95.0 % of its clients, decided at a load of 93 %"));
}

TEST_F(Policies, ASteerWithinAnotherIsPassedOverWhenItHasNothing) {
  const uint32_t inner = add("inner", SteerPolicy::failover, {to_vip(vips_[0])});
  add("outer", SteerPolicy::failover, {to_steer(inner), to_vip(vips_[1])});
  add("crowd", SteerPolicy::weighted, {to_steer(inner, 900), to_vip(vips_[1], 100)});
  EXPECT_THAT(ask("outer", "10.1.0.1"), ElementsAre("203.0.113.1"));
  edge_.drain(vip_key("vip-eu"));
  EXPECT_THAT(ask("outer", "10.1.0.1"), ElementsAre("203.0.113.2"));
  for (int i = 0; i < 50; ++i)
    EXPECT_THAT(ask("crowd", "10.1." + std::to_string(i) + ".1"), ElementsAre("203.0.113.2"));
  edge_.drain(vip_key("vip-us"));
  EXPECT_EQ(edge_.ask("outer.example.test", rrtype::kA, "10.1.0.1").rcode(), 2);
}

// Draws at two levels must be independent.
TEST_F(Policies, DrawsWithinDrawsAreTheirOwn) {
  const uint32_t inner = add("inner", SteerPolicy::weighted, {to_vip(vips_[0], 50), to_vip(vips_[1], 50)});
  add("outer", SteerPolicy::weighted, {to_steer(inner, 50), to_vip(vips_[2], 50)});
  std::map<std::string, uint32_t> share;
  for (uint32_t i = 0; i < 8'000; ++i) {
    edge_.worker().now_s = 1'700'000'000 + i / 256 * DrawKey::kWindowS;
    ++share[ask("outer", "10.1." + std::to_string(i % 256) + ".1").at(0)];
  }
  EXPECT_NEAR(share["203.0.113.3"], 4'000, 225);
  EXPECT_NEAR(share["203.0.113.1"], 2'000, 195);
  EXPECT_NEAR(share["203.0.113.2"], 2'000, 195);
}

TEST_F(Policies, NearestComparesTheSitesOfSteersToo) {
  const uint32_t inner = add("inner", SteerPolicy::failover, {to_vip(vips_[0])});
  add("www", SteerPolicy::nearest, {at_site(to_steer(inner), 2), to_vip(vips_[1])});
  EXPECT_THAT(ask("www", "10.3.0.1"), ElementsAre("203.0.113.1"));
  EXPECT_THAT(ask("www", "10.2.0.1"), ElementsAre("203.0.113.2"));
}

TEST_F(Policies, AWildcardSteerNestsLikeAnyOther) {
  const uint32_t inner = add("inner", SteerPolicy::nearest, {to_vip(vips_[0]), to_vip(vips_[1])});
  add("*.apps", SteerPolicy::failover, {to_steer(inner)});
  EXPECT_THAT(ask("any.apps", "10.2.0.1"), ElementsAre("203.0.113.2"));
  EXPECT_THAT(ask("other.deep.apps", "10.1.0.1"), ElementsAre("203.0.113.1"));
}

// The apex has SOA and NS records, so that it can't be a CNAME.
TEST_F(Policies, AnAliasAnswersAtTheApexWithTheAddressesThatItHas) {
  edge_.add_steer("example.test.", SteerPolicy::failover, {to_alias("cdn.elsewhere.test."), to_vip(vips_[0])});
  const auto at_apex = [&](uint16_t type) { return edge_.ask("example.test", type, "10.1.0.1"); };
  EXPECT_THAT(at_apex(rrtype::kA).addresses(), ElementsAre("203.0.113.1")) << "not looked up yet: the next target";
  edge_.aliases()["cdn.elsewhere.test."] = {{true, 20, {{192, 0, 2, 7}, {192, 0, 2, 8}}}, {true, 60, {}}};
  edge_.changed(false);
  EXPECT_THAT(at_apex(rrtype::kA).addresses(), ElementsAre("192.0.2.7", "192.0.2.8"));
  EXPECT_THAT(at_apex(rrtype::kA).answers(), Contains("example.test. 20 IN A 192.0.2.7")) << "the alias's TTL";
  EXPECT_THAT(at_apex(rrtype::kAaaa).addresses(), ElementsAre("2001:db8:1::1")) << "it has none of this family";
  EXPECT_THAT(edge_.ask("example.test", rrtype::kMx).answers(), SizeIs(1));
}

TEST_F(Policies, AnAliasThatIsNotKnownYetIsAFailureAndOneWithoutAddressesIsNot) {
  add("cdn", SteerPolicy::failover, {to_alias("cdn.elsewhere.test.")});
  EXPECT_EQ(edge_.ask("cdn.example.test", rrtype::kA).rcode(), 2) << "a resolver asks again";
  EXPECT_EQ(explained("cdn", "10.1.0.1")["candidates"][0]["why"], "not looked up yet");
  edge_.aliases()["cdn.elsewhere.test."] = {{true, 20, {}}, {true, 60, {}}};
  edge_.changed(false);
  const Answer none = edge_.ask("cdn.example.test", rrtype::kA);
  EXPECT_EQ(none.rcode(), 0);
  EXPECT_THAT(none.authorities(), SizeIs(1));
}

TEST_F(Policies, AnAddressThatSeveralWaysLeadToStandsOnce) {
  const uint32_t a = add("a", SteerPolicy::failover, {to_vip(vips_[0])});
  const uint32_t b = add("b", SteerPolicy::multivalue, {to_vip(vips_[0]), to_vip(vips_[1])});
  add("both", SteerPolicy::multivalue, {to_steer(a), to_steer(b), to_vip(vips_[0])});
  EXPECT_THAT(ask("both", "10.1.0.1"), ElementsAre("203.0.113.1", "203.0.113.2"));
}

// More different maps than allowed: the version is refused. Too many sets of sites only share a wider question.
TEST_F(Policies, MapsAreBoundedAndSetsOfSitesFallBack) {
  Edge edge;
  edge.add_zone("example.test.", kZone);
  for (uint32_t i = 0; i < 30; ++i) {
    const std::string n = std::to_string(i);
    edge.add_vip("v" + n, edge.add_site("s" + n, static_cast<double>(i), static_cast<double>(i) * 5), {"192.0.2." + n});
    edge.add_network("10." + n + ".0.0/16", i);
  }
  uint32_t count = 0;
  for (uint32_t i = 0; i < 30; ++i) {
    for (uint32_t k = 0; k < i; ++k, ++count)
      edge.add_steer("s" + std::to_string(count) + ".example.test.", SteerPolicy::nearest, {to_vip(i), to_vip(k)});
  }
  ASSERT_GT(count, kMaxRankings);
  EXPECT_THAT(edge.ask("s" + std::to_string(count - 1) + ".example.test", rrtype::kA, "10.28.0.1").addresses(),
              ElementsAre("192.0.2.28"));
  EXPECT_EQ(edge.tables().rankings.maps.size(), kMaxRankings);
  for (uint32_t i = 0; i < kMaxRankings; ++i) {
    edge.add_steer("m" + std::to_string(i) + ".example.test.", SteerPolicy::map,
                   {for_clients(to_vip(0), {{*Cidr::parse("10.0.0." + std::to_string(i))}, {}, {}, {}, {}})});
  }
  Edge again;
  again.model() = edge.model();
  const auto refused = again.build();
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("more than 256 different maps"));
}

}  // namespace tidegate::dns::test::steer_policies_test
