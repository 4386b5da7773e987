// SPDX-License-Identifier: Apache-2.0
// Additional data: the addresses of the names that an answer's records lead to, and the glue of referrals.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "conf/model/steer.h"
#include "dns/limits.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::additional_test {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr char kMore[] = R"($ORIGIN more.test.
$TTL 300
@        IN SOA ns h 1 1 1 1 1
         IN NS ns
ns       IN A 192.0.2.1
@        IN MX 10 in.more.test.
@        IN MX 20 mail.example.test.
@        IN MX 30 mail.elsewhere.test.
in       IN A 192.0.2.2
same     IN MX 10 in
same     IN MX 20 in
wild     IN MX 10 any.of.stars
*.stars  IN A 192.0.2.3
aliased  IN MX 10 alias
alias    IN CNAME in
absent   IN MX 10 nowhere
null     IN MX 0 .
_s._tcp  IN SRV 0 0 443 in
web      IN HTTPS 1 . alpn=h2
web      IN A 192.0.2.4
web      IN AAAA 2001:db8::4
other    IN HTTPS 1 in
zero     IN HTTPS 0 in.more.test.
cut      IN NS ns.cut
cut      IN NS any.stars
cut      IN NS geo
ns.cut   IN A 192.0.2.5
below    IN MX 10 ns.cut
to-geo   IN MX 10 geo
)";

class Additional : public ::testing::Test {
 protected:
  Additional() {
    edge_.add_zone("example.test.", kZone);
    edge_.add_zone("more.test.", kMore);
  }
  void steer_geo() {
    const uint32_t eu = edge_.add_site("eu", 50.11, 8.68), us = edge_.add_site("us", 40.71, -74.0);
    edge_.add_network("10.1.0.0/16", eu);
    edge_.add_network("10.2.0.0/16", us);
    edge_
        .add_steer("geo.more.test.", SteerPolicy::nearest,
                   {to_vip(edge_.add_vip("eu", eu, {"203.0.113.1", "2001:db8:1::1"})),
                    to_vip(edge_.add_vip("us", us, {"203.0.113.2"}))})
        .ttl_s = 5;
  }
  std::vector<std::string> beside(const std::string& name, uint16_t type, const std::string& client = "10.1.0.1") {
    const Answer answer = edge_.ask(name, type, client, Edns{});
    EXPECT_TRUE(answer) << name;
    EXPECT_FALSE(answer.tc()) << name;
    return answer.additionals();
  }

  Edge edge_;
};

TEST_F(Additional, TheAddressesOfTargetsGoWithNsMxSrvAndHttps) {
  EXPECT_THAT(beside("example.test", rrtype::kNs),
              ElementsAre("ns1.example.test. 300 IN A 192.0.2.53", "ns1.example.test. 300 IN AAAA 2001:db8::53"))
      << "ns2 is another's";
  EXPECT_THAT(beside("_s._tcp.more.test", rrtype::kSrv), ElementsAre("in.more.test. 300 IN A 192.0.2.2"));
  EXPECT_THAT(beside("other.more.test", rrtype::kHttps), ElementsAre("in.more.test. 300 IN A 192.0.2.2"));
  EXPECT_THAT(beside("zero.more.test", rrtype::kHttps), ElementsAre("in.more.test. 300 IN A 192.0.2.2"))
      << "an alias of RFC 9460 too";
  EXPECT_THAT(beside("web.more.test", rrtype::kHttps),
              ElementsAre("web.more.test. 300 IN A 192.0.2.4", "web.more.test. 300 IN AAAA 2001:db8::4"))
      << "a dot is the owner itself";
  EXPECT_THAT(beside("more.test", rrtype::kMx),
              ElementsAre("in.more.test. 300 IN A 192.0.2.2", "mail.example.test. 300 IN A 192.0.2.25"))
      << "also out of another zone of ours";
}

TEST_F(Additional, WhatIsNotThereIsNotMadeUp) {
  for (const char* name : {"absent.more.test", "aliased.more.test", "null.more.test", "below.more.test"}) {
    EXPECT_THAT(beside(name, rrtype::kMx), IsEmpty()) << name;
  }
  EXPECT_THAT(beside("web.more.test", rrtype::kA), IsEmpty());
  EXPECT_THAT(beside("same.more.test", rrtype::kMx), SizeIs(1)) << "one target, once";
  EXPECT_THAT(beside("wild.more.test", rrtype::kMx), ElementsAre("any.of.stars.more.test. 300 IN A 192.0.2.3"));
}

TEST_F(Additional, AliasesAndWildcardsKeepTheirPlacesInTheMessage) {
  EXPECT_THAT(edge_.ask("apexalias.example.test", rrtype::kMx).additionals(),
              ElementsAre("mail.example.test. 300 IN A 192.0.2.25"));
  edge_.add_zone("w.test.",
                 "$ORIGIN w.test.\n$TTL 9\n@ IN SOA ns h 1 1 1 1 1\n@ IN NS ns.x\n@ IN MX 1 a.b.x\n*.x IN A "
                 "192.0.2.9\n");
  edge_.changed();
  EXPECT_THAT(edge_.ask("w.test", rrtype::kMx).additionals(), ElementsAre("a.b.x.w.test. 9 IN A 192.0.2.9"));
  EXPECT_THAT(edge_.ask("w.test", rrtype::kNs).additionals(), ElementsAre("ns.x.w.test. 9 IN A 192.0.2.9"));
}

TEST_F(Additional, ASteeredTargetIsChosenForTheClientAndItsScopeIsTold) {
  steer_geo();
  EXPECT_THAT(beside("to-geo.more.test", rrtype::kMx, "10.2.0.1"),
              UnorderedElementsAre("geo.more.test. 5 IN A 203.0.113.2", "geo.more.test. 5 IN AAAA 2001:db8:1::1"));
  const Answer answer =
      edge_.ask("to-geo.more.test", rrtype::kMx, "192.0.2.99", Edns{.options = {subnet_option("10.2.3.0/24")}});
  ASSERT_THAT(*options_of(answer), SizeIs(1));
  EXPECT_EQ(options_of(answer)->front().data[3], 16);
  EXPECT_TRUE(edge_.worker().last_is_personal) << "no shared cache may keep it";
}

TEST_F(Additional, WhatDoesNotFitIsLeftOutWhole) {
  std::string zone = "$ORIGIN big.test.\n$TTL 60\n@ IN SOA ns h 1 1 1 1 1\n@ IN NS ns\n@ IN MX 1 many\n@ IN MX 2 one\n";
  for (int i = 0; i < 40; ++i) zone += fmt::format("many IN A 192.0.2.{}\n", i);  // 40 * 16 = 640 bytes
  edge_.add_zone("big.test.", zone + "one IN A 192.0.2.99\n");
  EXPECT_THAT(edge_.ask("big.test", rrtype::kMx).additionals(), ElementsAre("one.big.test. 60 IN A 192.0.2.99"));
  EXPECT_FALSE(edge_.ask("big.test", rrtype::kMx).tc());
  EXPECT_THAT(beside("big.test", rrtype::kMx), SizeIs(41));
  const auto over_tcp = edge_.ask_wire(make_query("big.test", rrtype::kMx), "198.51.100.1", QueryTransport::tcp);
  EXPECT_THAT(read_answer(over_tcp).additionals(), SizeIs(41));
}

TEST_F(Additional, TheNamesLookedUpAreBounded) {
  std::string zone = "$ORIGIN many.test.\n$TTL 60\n@ IN SOA ns h 1 1 1 1 1\n@ IN NS ns\n";
  for (int i = 0; i < 40; ++i) zone += fmt::format("@ IN MX {} m{}\nm{} IN A 192.0.2.{}\n", i, i, i, i);
  edge_.add_zone("many.test.", zone);
  const auto over_tcp = edge_.ask_wire(make_query("many.test", rrtype::kMx), "198.51.100.1", QueryTransport::tcp);
  EXPECT_THAT(read_answer(over_tcp).additionals(), SizeIs(kMaxAdditionalNames));
}

TEST_F(Additional, GlueComesFromWildcardsAndSteersToo) {
  EXPECT_THAT(edge_.ask("x.cut.more.test", rrtype::kA).additionals(),
              UnorderedElementsAre("ns.cut.more.test. 300 IN A 192.0.2.5", "any.stars.more.test. 300 IN A 192.0.2.3"));
  steer_geo();
  edge_.changed();
  const Answer referral = edge_.ask("x.cut.more.test", rrtype::kA, "10.2.0.1");
  EXPECT_FALSE(referral.aa());
  EXPECT_THAT(referral.authorities(), SizeIs(3));
  EXPECT_THAT(referral.additionals(),
              UnorderedElementsAre("ns.cut.more.test. 300 IN A 192.0.2.5", "any.stars.more.test. 300 IN A 192.0.2.3",
                                   "geo.more.test. 5 IN A 203.0.113.2", "geo.more.test. 5 IN AAAA 2001:db8:1::1"));
  EXPECT_THAT(edge_.ask("x.child.example.test", rrtype::kA).additionals(), SizeIs(4)) << "a zone without steers";
}

}  // namespace tidegate::dns::test::additional_test
