// SPDX-License-Identifier: Apache-2.0
#include "dns/query/query.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "dns/wire/cookie.h"
#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::query_test {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using ::testing::UnorderedElementsAre;

constexpr uint16_t kTxt = 16, kSrv = 33;
constexpr char kNegativeSoa[] =
    "example.test. 60 IN SOA ns1.example.test. hostmaster.example.test. 2026010101 3600 600 604800 60";

class Query : public ::testing::Test {
 protected:
  Query() { edge_.add_zone("example.test.", kZone); }
  Edge edge_;
};

TEST_F(Query, AnswersWhatTheZoneHolds) {
  const Answer a = edge_.ask("www.example.test", rrtype::kA);
  ASSERT_TRUE(a);
  EXPECT_EQ(a.rcode(), 0);
  EXPECT_TRUE(a.aa());
  EXPECT_THAT(a.answers(), ElementsAre("www.example.test. 60 IN A 192.0.2.80", "www.example.test. 60 IN A 192.0.2.81"));
  EXPECT_THAT(a.authorities(), IsEmpty());
  EXPECT_THAT(edge_.ask("www.example.test", rrtype::kAaaa).addresses(), ElementsAre("2001:db8::80"));
  EXPECT_THAT(edge_.ask("example.test", rrtype::kMx).answers(),
              ElementsAre("example.test. 300 IN MX 10 mail.example.test."));
  EXPECT_THAT(edge_.ask("example.test", kTxt).answers(),
              ElementsAre("example.test. 300 IN TXT \"a zone\" \"in two strings\""));
  EXPECT_THAT(edge_.ask("srv.example.test", kSrv).answers(),
              ElementsAre("srv.example.test. 300 IN SRV 0 0 443 www.example.test."));
  EXPECT_THAT(edge_.ask("example.test", rrtype::kNs).answers(),
              ElementsAre("example.test. 300 IN NS ns1.example.test.", "example.test. 300 IN NS ns2.elsewhere.test."));
  EXPECT_EQ(edge_.count(QueryOutcome::answered), 6U);
}

// dns-01: the TXT records of the live state replace those of the zone. They are removed when the order has ended.
TEST_F(Query, ShowsWhatAnAuthorityLooksFor) {
  edge_.live_state().proofs = {{"dns/example.test/value-1", ""},
                               {"dns/example.test/value-2", ""},
                               {"dns/www.example.test/value-3", ""},
                               {"dns/elsewhere.test/value-4", ""},
                               {"dns/odd", ""},
                               {"http/token", "x"}};
  edge_.changed(false);
  EXPECT_THAT(edge_.ask("_ACME-challenge.example.test", kTxt).answers(),
              UnorderedElementsAre("_ACME-challenge.example.test. 1 IN TXT \"value-1\"",
                                   "_ACME-challenge.example.test. 1 IN TXT \"value-2\""));
  EXPECT_THAT(edge_.ask("_acme-challenge.www.example.test", kTxt).answers(), SizeIs(1));
  const Answer other_type = edge_.ask("_acme-challenge.example.test", rrtype::kA);
  EXPECT_EQ(other_type.rcode(), 0);
  EXPECT_THAT(other_type.answers(), IsEmpty());
  EXPECT_THAT(other_type.authorities(), ElementsAre(kNegativeSoa));
  EXPECT_THAT(edge_.ask("_acme-challenge.elsewhere.test", kTxt).answers(), IsEmpty());
  EXPECT_THAT(edge_.ask("example.test", kTxt).answers(), SizeIs(1));
  edge_.live_state().proofs.clear();
  edge_.changed(false);
  EXPECT_EQ(edge_.ask("_acme-challenge.example.test", kTxt).rcode(), 3);
}

TEST_F(Query, EchoesIdFlagsAndTheCaseOfTheQuestion) {
  auto query = make_query("wWw.ExAmPlE.tEsT", rrtype::kA, std::nullopt, 0xbeef);
  store_u16(&query[header::kFlags], header::kRecursionDesired | header::kCheckingDisabled);
  const auto out = edge_.ask_wire(query);
  ASSERT_GT(out.size(), query.size());
  EXPECT_EQ(load_u16(out.data()), 0xbeef);
  EXPECT_EQ(load_u16(&out[header::kFlags]),
            header::kResponse | header::kAuthoritative | header::kRecursionDesired | header::kCheckingDisabled);
  EXPECT_TRUE(std::equal(query.begin() + kHeaderBytes, query.end(), out.begin() + kHeaderBytes));
}

TEST_F(Query, CompressesOwnersAndNamesOfTheZone) {
  const auto out = edge_.ask_wire(make_query("example.test", rrtype::kNs));
  // The question takes 12 + 14 + 4 bytes. ns1 is a pointer, the fixed fields, "ns1" and a pointer to the apex. ns2 is
  // spelled out.
  const size_t answers_end = 30 + (12 + 4 + 2) + (12 + 20);
  // The addresses of ns1 are added, with pointers to its name in the answer as their owners.
  ASSERT_EQ(out.size(), answers_end + (12 + 4) + (12 + 16));
  EXPECT_EQ(load_u16(&out[answers_end]), kPointerBits | (30 + 12));
  EXPECT_EQ(load_u16(&out[30 + 12 + 4]), kPointerBits | kQnameOffset);
}

TEST_F(Query, TellsNameErrorFromNoData) {
  const Answer no_name = edge_.ask("nowhere.example.test", rrtype::kA);
  EXPECT_EQ(no_name.rcode(), 3);
  EXPECT_TRUE(no_name.aa());
  EXPECT_THAT(no_name.authorities(), ElementsAre(kNegativeSoa));
  const Answer no_data = edge_.ask("www.example.test", kTxt);
  EXPECT_EQ(no_data.rcode(), 0);
  EXPECT_THAT(no_data.answers(), IsEmpty());
  EXPECT_THAT(no_data.authorities(), ElementsAre(kNegativeSoa));
}

TEST_F(Query, EmptyNonTerminalsExist) {
  EXPECT_EQ(edge_.ask("c.example.test", rrtype::kA).rcode(), 0);
  EXPECT_EQ(edge_.ask("b.c.example.test", rrtype::kA).rcode(), 0);
  EXPECT_EQ(edge_.ask("x.b.c.example.test", rrtype::kA).rcode(), 3);
  EXPECT_EQ(edge_.ask("wild.example.test", rrtype::kA).rcode(), 0);
  EXPECT_THAT(edge_.ask("wild.example.test", rrtype::kA).answers(), IsEmpty());
}

TEST_F(Query, AWildcardStandsForNamesThatDoNotExist) {
  EXPECT_THAT(edge_.ask("x.wild.example.test", rrtype::kA).answers(),
              ElementsAre("x.wild.example.test. 300 IN A 192.0.2.99"));
  EXPECT_THAT(edge_.ask("x.y.wild.example.test", rrtype::kA).addresses(), ElementsAre("192.0.2.99"));
  EXPECT_EQ(edge_.ask("x.wild.example.test", rrtype::kMx).rcode(), 0) << "no data at the wildcard";
  // RFC 4592 §2.2.2: an existing name, even an empty one, is its own closest encloser.
  EXPECT_THAT(edge_.ask("real.wild.example.test", rrtype::kA).addresses(), ElementsAre("192.0.2.98"));
  EXPECT_EQ(edge_.ask("ent.wild.example.test", rrtype::kA).rcode(), 0);
  EXPECT_THAT(edge_.ask("ent.wild.example.test", rrtype::kA).answers(), IsEmpty());
  EXPECT_EQ(edge_.ask("x.ent.wild.example.test", rrtype::kA).rcode(), 3);
  EXPECT_EQ(edge_.ask("x.real.wild.example.test", rrtype::kA).rcode(), 3);
  // A query for the wildcard itself treats it like any other name.
  EXPECT_THAT(edge_.ask("*.wild.example.test", rrtype::kA).answers(),
              ElementsAre("*.wild.example.test. 300 IN A 192.0.2.99"));
  EXPECT_THAT(edge_.ask("q.cnamed.example.test", rrtype::kA).answers(), SizeIs(3));
}

TEST_F(Query, FollowsAliasesInsideTheZone) {
  EXPECT_THAT(edge_.ask("alias2.example.test", rrtype::kA).answers(),
              ElementsAre("alias2.example.test. 300 IN CNAME alias.example.test.",
                          "alias.example.test. 300 IN CNAME www.example.test.", "www.example.test. 60 IN A 192.0.2.80",
                          "www.example.test. 60 IN A 192.0.2.81"));
  EXPECT_THAT(edge_.ask("apexalias.example.test", rrtype::kMx).answers(),
              ElementsAre("apexalias.example.test. 300 IN CNAME example.test.",
                          "example.test. 300 IN MX 10 mail.example.test."));
  EXPECT_THAT(edge_.ask("alias.example.test", rrtype::kCname).answers(), SizeIs(1));
}

TEST_F(Query, AnAliasThatLeadsNowhereTakesItsEndsCode) {
  const Answer outside = edge_.ask("outside.example.test", rrtype::kA);
  EXPECT_EQ(outside.rcode(), 0);
  EXPECT_THAT(outside.answers(), ElementsAre("outside.example.test. 300 IN CNAME www.elsewhere.test."));
  const Answer dangling = edge_.ask("dangling.example.test", rrtype::kA);
  EXPECT_EQ(dangling.rcode(), 3);
  EXPECT_THAT(dangling.answers(), SizeIs(1));
  EXPECT_THAT(dangling.authorities(), ElementsAre(kNegativeSoa));
}

TEST_F(Query, AnAliasThatReturnsToItselfEndsThere) {
  edge_.add_zone("loops.test.", R"($ORIGIN loops.test.
$TTL 60
@        IN SOA ns h 1 1 1 1 1
@        IN NS ns
self     IN CNAME self
one      IN CNAME two
two      IN CNAME one
*.wild   IN CNAME x.wild
a        IN DNAME b
b        IN DNAME a
same     IN DNAME same
deeper   IN DNAME x.deeper
left     IN DNAME x.right
right    IN DNAME y.left
into     IN DNAME one.into2
one.into2 IN CNAME x.into
)");
  struct Loop {
    const char* name;
    size_t records;
  };
  const Loop loops[] = {{"self.loops.test", 1},  {"one.loops.test", 2},    {"y.wild.loops.test", 2},
                        {"x.a.loops.test", 4},   {"x.same.loops.test", 2}, {"x.deeper.loops.test", 2},
                        {"x.left.loops.test", 4}};
  for (const Loop& loop : loops) {
    const uint64_t before = edge_.count(QueryOutcome::alias_loop);
    const Answer answer = edge_.ask(loop.name, rrtype::kA);
    EXPECT_EQ(answer.rcode(), 0) << loop.name;
    auto records = answer.answers();
    EXPECT_THAT(records, SizeIs(loop.records)) << loop.name;
    std::sort(records.begin(), records.end());
    EXPECT_EQ(std::unique(records.begin(), records.end()), records.end()) << loop.name << ": RFC 2181 §5";
    EXPECT_EQ(edge_.count(QueryOutcome::alias_loop), before + 1) << loop.name;
  }
}

TEST_F(Query, ALongChainOfAliasesIsFollowedAsFarAsItMayBe) {
  std::string zone = "$ORIGIN chain.test.\n@ 60 IN SOA ns h 1 1 1 1 1\n@ 60 IN NS ns\nend 60 IN A 192.0.2.1\n";
  for (int i = 0; i < 20; ++i) {
    zone += fmt::format("c{} 60 IN CNAME {}\n", i, i == 19 ? "end" : fmt::format("c{}", i + 1));
  }
  edge_.add_zone("chain.test.", zone);
  EXPECT_THAT(edge_.ask("c12.chain.test", rrtype::kA).addresses(), ElementsAre("192.0.2.1"));
  EXPECT_THAT(edge_.ask("c0.chain.test", rrtype::kA).answers(), SizeIs(9));
  EXPECT_EQ(edge_.count(QueryOutcome::alias_loop), 1U);
}

TEST_F(Query, ADnameMetTwiceOnTheWayToARealNameStandsOnce) {
  edge_.add_zone("twice.test.", R"($ORIGIN twice.test.
$TTL 60
@      IN SOA ns h 1 1 1 1 1
@      IN NS ns
d      IN DNAME e
x.e    IN CNAME y.d
y.e    IN A 192.0.2.7
)");
  EXPECT_THAT(edge_.ask("x.d.twice.test", rrtype::kA).answers(),
              ElementsAre("d.twice.test. 60 IN DNAME e.twice.test.", "x.d.twice.test. 60 IN CNAME x.e.twice.test.",
                          "x.e.twice.test. 60 IN CNAME y.d.twice.test.", "y.d.twice.test. 60 IN CNAME y.e.twice.test.",
                          "y.e.twice.test. 60 IN A 192.0.2.7"));
}

// RFC 6672 §3.2: for a CNAME query, the CNAME made from a DNAME is the answer, like a CNAME made from a wildcard.
TEST_F(Query, ACnameQueryBelowADnameGetsTheMadeCname) {
  EXPECT_THAT(edge_.ask("host.old.example.test", rrtype::kCname).answers(),
              ElementsAre("old.example.test. 300 IN DNAME new.example.test.",
                          "host.old.example.test. 300 IN CNAME host.new.example.test."));
  const Answer absent = edge_.ask("absent.old.example.test", rrtype::kCname);
  EXPECT_EQ(absent.rcode(), 0);
  EXPECT_THAT(absent.answers(), SizeIs(2));
  EXPECT_THAT(absent.authorities(), IsEmpty());
}

TEST_F(Query, ADelegationIsAReferralWithGlue) {
  for (const char* name :
       {"child.example.test", "x.child.example.test", "hidden.child.example.test", "ns.child.example.test"}) {
    const Answer referral = edge_.ask(name, rrtype::kA);
    EXPECT_EQ(referral.rcode(), 0) << name;
    EXPECT_FALSE(referral.aa()) << name;
    EXPECT_THAT(referral.answers(), IsEmpty()) << name;
    EXPECT_THAT(referral.authorities(), ElementsAre("child.example.test. 300 IN NS ns.child.example.test.",
                                                    "child.example.test. 300 IN NS ns1.example.test."))
        << name;
    EXPECT_THAT(referral.additionals(), UnorderedElementsAre("ns.child.example.test. 300 IN A 192.0.2.77",
                                                             "ns.child.example.test. 300 IN AAAA 2001:db8::77",
                                                             "ns1.example.test. 300 IN A 192.0.2.53",
                                                             "ns1.example.test. 300 IN AAAA 2001:db8::53"))
        << name;
  }
}

TEST_F(Query, TheParentAnswersForTheDelegationsDs) {
  const Answer ds = edge_.ask("child.example.test", rrtype::kDs);
  EXPECT_TRUE(ds.aa());
  EXPECT_THAT(ds.answers(), SizeIs(1));
  EXPECT_FALSE(edge_.ask("x.child.example.test", rrtype::kDs).aa());
}

TEST_F(Query, ADnameRedirectsWhatIsBelow) {
  EXPECT_THAT(edge_.ask("host.old.example.test", rrtype::kA).answers(),
              ElementsAre("old.example.test. 300 IN DNAME new.example.test.",
                          "host.old.example.test. 300 IN CNAME host.new.example.test.",
                          "host.new.example.test. 300 IN A 192.0.2.44"));
  EXPECT_EQ(edge_.ask("absent.old.example.test", rrtype::kA).rcode(), 3);
  EXPECT_THAT(edge_.ask("x.gone.example.test", rrtype::kA).answers(),
              ElementsAre("gone.example.test. 300 IN DNAME elsewhere.test.",
                          "x.gone.example.test. 300 IN CNAME x.elsewhere.test."));
  EXPECT_THAT(edge_.ask("old.example.test", rrtype::kDname).answers(), SizeIs(1)) << "its own name is not redirected";
  EXPECT_EQ(edge_.ask("old.example.test", rrtype::kA).rcode(), 0);
}

TEST_F(Query, ANameTooLongForADnameIsYxdomain) {
  Edge edge;
  const std::string target = std::string(60, 't') + "." + std::string(60, 'u') + "." + std::string(60, 'v') + ".test.";
  edge.add_zone("d.test.",
                "$ORIGIN d.test.\n@ 60 IN SOA ns h 1 1 1 1 1\n@ 60 IN NS ns\n@ 60 IN DNAME " + target + "\n");
  EXPECT_EQ(edge.ask(std::string(60, 'x') + ".d.test", rrtype::kA).rcode(), 0);
  EXPECT_EQ(edge.ask(std::string(63, 'x') + "." + std::string(60, 'x') + ".d.test", rrtype::kA).rcode(), 6);
}

TEST_F(Query, TheLongestZoneAnswers) {
  edge_.add_zone("child.example.test.",
                 "$ORIGIN child.example.test.\n@ 60 IN SOA ns h 1 1 1 1 1\n@ 60 IN NS ns\nx 60 IN A 203.0.113.1\n");
  const Answer own = edge_.ask("x.child.example.test", rrtype::kA);
  EXPECT_TRUE(own.aa());
  EXPECT_THAT(own.addresses(), ElementsAre("203.0.113.1"));
  const Answer ds = edge_.ask("child.example.test", rrtype::kDs);
  EXPECT_THAT(ds.answers(), SizeIs(1)) << "DS is the parent's, RFC 4035 §3.1.4.1";
  EXPECT_TRUE(edge_.ask("www.example.test", rrtype::kA).aa());
}

TEST_F(Query, OtherZonesClassesAndTransfersAreRefused) {
  const Answer other = edge_.ask("www.elsewhere.test", rrtype::kA, "198.51.100.1", Edns{});
  EXPECT_EQ(other.rcode(), 5);
  EXPECT_FALSE(other.aa());
  ASSERT_THAT(*options_of(other), SizeIs(1));
  EXPECT_EQ(options_of(other)->front().code, 15) << "extended error, RFC 8914";
  EXPECT_EQ(edge_.ask("notexample.test", rrtype::kA).rcode(), 5) << "a suffix of bytes is not a suffix of labels";
  EXPECT_EQ(edge_.ask("test", rrtype::kA).rcode(), 5);
  EXPECT_EQ(edge_.ask("", rrtype::kNs).rcode(), 5);
  EXPECT_EQ(edge_.ask("example.test", rrtype::kAxfr).rcode(), 5);
  auto chaos = make_query("version.bind", kTxt);
  store_u16(&chaos[chaos.size() - 2], 3);
  EXPECT_EQ(read_answer(edge_.ask_wire(chaos)).rcode(), 5);
}

TEST_F(Query, AnyGetsTheMinimalAnswer) {
  EXPECT_THAT(edge_.ask("www.example.test", rrtype::kAny).answers(),
              ElementsAre("www.example.test. 3600 IN HINFO \"RFC8482\" \"\""));
  EXPECT_EQ(edge_.ask("nowhere.example.test", rrtype::kAny).rcode(), 3);
}

TEST_F(Query, OtherOperationsAreNotImplemented) {
  for (uint16_t opcode = 1; opcode < 16; ++opcode) {
    auto query = make_query("www.example.test", rrtype::kA);
    store_u16(&query[header::kFlags], static_cast<uint16_t>(opcode << header::kOpcodeShift));
    const auto out = edge_.ask_wire(query);
    ASSERT_EQ(out.size(), kHeaderBytes);
    EXPECT_EQ(load_u16(&out[header::kFlags]), header::kResponse | opcode << header::kOpcodeShift | 4);
  }
}

TEST_F(Query, ResponsesAndRunsOfNoiseAreNotAnswered) {
  auto response = make_query("www.example.test", rrtype::kA);
  response[header::kFlags] |= 0x80;
  EXPECT_THAT(edge_.ask_wire(response), IsEmpty());
  for (size_t bytes = 0; bytes < kHeaderBytes; ++bytes)
    EXPECT_THAT(edge_.ask_wire(std::vector<uint8_t>(bytes, 0)), IsEmpty());
  EXPECT_EQ(edge_.count(QueryOutcome::bad_response), 1U);
  EXPECT_EQ(edge_.count(QueryOutcome::bad_short), kHeaderBytes);
}

TEST_F(Query, EveryCutOfAQueryIsAFormatErrorOrDropped) {
  const auto whole = make_query("www.example.test", rrtype::kA, Edns{.options = {subnet_option("10.1.0.0/16")}});
  for (size_t bytes = kHeaderBytes; bytes < whole.size(); ++bytes) {
    const auto out = edge_.ask_wire({whole.begin(), whole.begin() + static_cast<ptrdiff_t>(bytes)});
    ASSERT_GE(out.size(), kHeaderBytes) << bytes;
    EXPECT_EQ(load_u16(&out[header::kFlags]) & header::kRcodeMask, 1) << bytes;
    EXPECT_LE(out.size(), bytes + 15) << "an error amplifies nothing";
  }
}

TEST_F(Query, MalformedQuestionsAndCountsAreFormatErrors) {
  const auto rcode_of = [&](const std::vector<uint8_t>& query) {
    const auto out = edge_.ask_wire(query);
    return out.size() < kHeaderBytes ? -1 : load_u16(&out[header::kFlags]) & header::kRcodeMask;
  };
  const auto good = make_query("www.example.test", rrtype::kA);
  auto two = good;
  store_u16(&two[header::kQuestions], 2);
  EXPECT_EQ(rcode_of(two), 1) << "RFC 9619";
  auto none = good;
  store_u16(&none[header::kQuestions], 0);
  EXPECT_EQ(rcode_of(none), 1);
  auto answers = good;
  store_u16(&answers[header::kAnswers], 1);
  EXPECT_EQ(rcode_of(answers), 1);
  auto pointer = good;
  store_u16(&pointer[kHeaderBytes], 0xc00c);
  EXPECT_EQ(rcode_of(pointer), 1) << "a pointer to itself";
  auto reserved = good;
  reserved[kHeaderBytes] = 0x43;
  EXPECT_EQ(rcode_of(reserved), 1);
  auto trailing = good;
  trailing.push_back(0);
  EXPECT_EQ(rcode_of(trailing), 1);
  std::vector<uint8_t> endless(kHeaderBytes, 0);
  store_u16(&endless[header::kQuestions], 1);
  for (int i = 0; i < 130; ++i) endless.insert(endless.end(), {1, 'a'});
  endless.insert(endless.end(), {0, 0, 1, 0, 1});
  EXPECT_EQ(rcode_of(endless), 1) << "more than 255 bytes";
}

TEST_F(Query, OtherEdnsVersionsAreBadvers) {
  const Answer answer = edge_.ask("www.example.test", rrtype::kA, "198.51.100.1", Edns{.version = 7});
  EXPECT_EQ(answer.rcode(), 16);
  EXPECT_THAT(answer.answers(), IsEmpty());
  EXPECT_EQ(ldns_pkt_edns_version(answer.packet.get()), 0);
}

TEST_F(Query, EdnsIsAnsweredWithEdnsAndTheDnssecBitComesBack) {
  EXPECT_FALSE(options_of(edge_.ask("www.example.test", rrtype::kA)).has_value());
  const Answer answer =
      edge_.ask("www.example.test", rrtype::kA, "198.51.100.1", Edns{.payload = 4096, .dnssec_ok = true});
  EXPECT_TRUE(ldns_pkt_edns_do(answer.packet.get()));
  EXPECT_EQ(ldns_pkt_edns_udp_size(answer.packet.get()), 1232);
  EXPECT_THAT(answer.answers(), SizeIs(2));
}

TEST_F(Query, ARepeatedOrNamedOptIsAFormatError) {
  auto twice = make_query("www.example.test", rrtype::kA, Edns{});
  const std::vector<uint8_t> opt(twice.end() - 11, twice.end());
  twice.insert(twice.end(), opt.begin(), opt.end());
  store_u16(&twice[header::kAdditionals], 2);
  EXPECT_EQ(read_answer(edge_.ask_wire(twice)).rcode(), 1);
}

TEST_F(Query, TheNameServerIdIsGivenToWhoAsks) {
  edge_.node().dns.nsid = "edge-1";
  const Answer answer = edge_.ask("www.example.test", rrtype::kA, "198.51.100.1", Edns{.options = {{3, ""}}});
  ASSERT_THAT(*options_of(answer), SizeIs(1));
  EXPECT_EQ(options_of(answer)->front().data, "edge-1");
  EXPECT_THAT(*options_of(edge_.ask("www.example.test", rrtype::kA, "198.51.100.1", Edns{})), IsEmpty());
}

TEST_F(Query, ACookieComesBackWithOursAndOursVerifies) {
  edge_.worker().now_s = 1'000'000;
  const Answer answer = edge_.ask("www.example.test", rrtype::kA, "198.51.100.1", Edns{.options = {{10, "12345678"}}});
  ASSERT_THAT(*options_of(answer), SizeIs(1));
  const std::string cookie = options_of(answer)->front().data;
  ASSERT_EQ(cookie.size(), 24U);
  EXPECT_EQ(cookie.substr(0, 8), "12345678");
  dns::Edns edns;
  std::memcpy(edns.client_cookie.data(), cookie.data(), 8);
  std::memcpy(edns.server_cookie.data(), cookie.data() + 8, 16);
  edns.server_cookie_bytes = 16;
  const IpAddress client = *IpAddress::parse("198.51.100.1");
  EXPECT_TRUE(verify_server_cookie(edge_.worker().cookie_secret, edns, client, 1'000'100));
  EXPECT_FALSE(verify_server_cookie(edge_.worker().cookie_secret, edns, client, 1'003'700)) << "too old";
  EXPECT_FALSE(verify_server_cookie(edge_.worker().cookie_secret, edns, *IpAddress::parse("198.51.100.2"), 1'000'100));
  EXPECT_EQ(edge_.ask("www.example.test", rrtype::kA, "198.51.100.1", Edns{.options = {{10, "1234567"}}}).rcode(), 1);
}

// RFC 7873 §5.4.
TEST_F(Query, ACookieWithoutAQuestionGetsAServerCookie) {
  edge_.worker().now_s = 1'000'000;
  const auto ask = [&](const std::string& cookie, std::vector<Option> more = {}) {
    more.push_back({10, cookie});
    auto query = make_query("", rrtype::kA, Edns{.options = std::move(more)});
    // Removes the question, which is for the root.
    query.erase(query.begin() + kHeaderBytes, query.begin() + kHeaderBytes + 5);
    store_u16(&query[header::kQuestions], 0);
    return read_answer(edge_.ask_wire(query));
  };
  const Answer first = ask("12345678");
  ASSERT_TRUE(first);
  EXPECT_EQ(first.rcode(), 0);
  EXPECT_EQ(ldns_pkt_qdcount(first.packet.get()), 0);
  EXPECT_THAT(first.answers(), IsEmpty());
  ASSERT_THAT(*options_of(first), SizeIs(1));
  const std::string cookie = options_of(first)->front().data;
  ASSERT_EQ(cookie.size(), 24U);
  EXPECT_EQ(ask(cookie).rcode(), 0) << "ours, and fresh";
  const Answer stale = ask("12345678" + std::string(16, 'x'));
  EXPECT_EQ(stale.rcode(), 23) << "BADCOOKIE";
  EXPECT_EQ(options_of(stale)->front().data, cookie) << "with one that holds";
  EXPECT_EQ(ask("1234567").rcode(), 1) << "seven bytes";
  EXPECT_EQ(edge_.count(QueryOutcome::only_cookie), 2U);
  EXPECT_EQ(edge_.count(QueryOutcome::stale_cookie), 1U);
  // Without a cookie it stays malformed.
  std::vector<uint8_t> nothing(kHeaderBytes, 0);
  EXPECT_EQ(load_u16(&edge_.ask_wire(nothing)[header::kFlags]) & header::kRcodeMask, 1);
}

TEST(Cookie, MatchesThePublishedVectors) {
  // RFC 9018, appendix A.1: client 198.51.100.100, timestamp 1559731985.
  const std::array<uint8_t, 16> key{0xe5, 0xe9, 0x73, 0xe5, 0xa6, 0xb2, 0xa4, 0x3f,
                                    0x48, 0xe7, 0xdc, 0x84, 0x9e, 0x37, 0xbf, 0xcf};
  HashKey secret;
  std::memcpy(&secret, key.data(), sizeof secret);
  const std::array<uint8_t, 8> client{0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57};
  const auto cookie = make_server_cookie(secret, client, *IpAddress::parse("198.51.100.100"), 1559731985);
  const std::array<uint8_t, 16> expected{0x01, 0x00, 0x00, 0x00, 0x5c, 0xf7, 0x9f, 0x11,
                                         0x1f, 0x81, 0x30, 0xc3, 0xee, 0xe2, 0x94, 0x80};
  EXPECT_EQ(cookie, expected);
}

TEST_F(Query, WhatDoesNotFitIsTruncatedToTheQuestion) {
  Edge edge;
  std::string zone = "$ORIGIN big.test.\n@ 60 IN SOA ns h 1 1 1 1 1\n@ 60 IN NS ns\n";
  for (int i = 0; i < 60; ++i) zone += "many 60 IN A 192.0.2." + std::to_string(i) + "\n";  // 60 * 16 = 960 bytes
  edge.add_zone("big.test.", zone);
  const Answer plain = edge.ask("many.big.test", rrtype::kA);
  EXPECT_TRUE(plain.tc());
  EXPECT_THAT(plain.answers(), IsEmpty());
  EXPECT_LE(plain.wire.size(), 512U);
  EXPECT_FALSE(edge.ask("many.big.test", rrtype::kA, "198.51.100.1", Edns{}).tc());
  EXPECT_TRUE(edge.ask("many.big.test", rrtype::kA, "198.51.100.1", Edns{.payload = 900}).tc());
  EXPECT_TRUE(edge.ask("many.big.test", rrtype::kA, "198.51.100.1", Edns{.payload = 100}).tc())
      << "below 512 counts as 512";
  const auto over_tcp = edge.ask_wire(make_query("many.big.test", rrtype::kA), "198.51.100.1", QueryTransport::tcp);
  EXPECT_THAT(read_answer(over_tcp).answers(), SizeIs(60));
  EXPECT_EQ(edge.worker().tally.truncated.load(), 3U);
}

TEST_F(Query, NoAnswerIsLargerThanTheClientTakes) {
  for (const int payload : {0, 100, 512, 513, 600, 1231, 1232, 1233, 65535}) {
    for (const char* name : {"www", "child", "x.child", "alias2", "nowhere", "host.old"}) {
      const auto out =
          edge_.ask_wire(make_query(std::string(name) + ".example.test", rrtype::kA,
                                    Edns{.payload = static_cast<uint16_t>(payload),
                                         .options = {subnet_option("10.1.2.0/24"), {10, "12345678"}, {3, ""}}}));
      EXPECT_LE(out.size(), std::clamp<size_t>(payload, 512, 1232));
      EXPECT_TRUE(read_answer(out));
    }
  }
}

}  // namespace tidegate::dns::test::query_test
