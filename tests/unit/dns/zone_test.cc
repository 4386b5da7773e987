// SPDX-License-Identifier: Apache-2.0
#include "conf/model/zone.h"
#include "dns/zone/zone.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/unit/dns/support.h"

namespace tidegate::dns::test::zone_test {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kHead[] = "$ORIGIN z.test.\n$TTL 60\n@ IN SOA ns h 1 2 3 4 5\n@ IN NS ns\n";

// Every fault of the zone, as "file:line: what is wrong".
std::vector<std::string> faults_of(const std::string& text) {
  std::vector<Fault> faults;
  const auto zone = Zone::parse("z.test.", "z.zone", text, faults);
  EXPECT_EQ(zone == nullptr, !faults.empty());
  std::vector<std::string> out;
  for (const Fault& fault : faults) out.push_back(fmt::format("{}:{}: {}", fault.file, fault.line, fault.detail));
  return out;
}

std::string fault_of(const std::string& text) {
  const std::vector<std::string> faults = faults_of(text);
  return faults.empty() ? "no fault" : faults[0];
}

// Places as "line:column".
std::vector<std::string> places_of(const std::string& text) {
  std::vector<Fault> faults;
  (void)Zone::parse("z.test.", "z.zone", text, faults);
  std::vector<std::string> out;
  for (const Fault& fault : faults) out.push_back(fmt::format("{}:{}", fault.line, fault.column));
  return out;
}

TEST(ZoneFile, AFaultNamesFileLineAndCause) {
  EXPECT_THAT(fault_of(std::string(kHead) + "www IN A 192.0.2.1\nbad IN A 192.0.2.999\n"), StartsWith("z.zone:6: "));
  EXPECT_THAT(fault_of(std::string(kHead) + "\n; a comment\nbad IN NOSUCHTYPE x\n"), StartsWith("z.zone:7: "));
  EXPECT_THAT(fault_of(std::string(kHead) + "x IN TXT ( \"a\"\n \"b\" )\nbad IN MX mail\n"), HasSubstr("z.zone:"));
}

TEST(ZoneFile, EveryFaultIsFoundInOneRun) {
  const std::string text = std::string(kHead) +
                           "a IN A 192.0.2.999\n"               // 5
                           "b IN AAAA 192.0.2.1 ; a comment\n"  // 6
                           "c..d IN A 192.0.2.1\n"              // 7
                           "  IN A 192.0.2.2\n"                 // column 8: the name that was refused
                           "e IN TXT \"no end\n"                // 9
                           "f IN CNAME a\n"                     // 10
                           "f IN CNAME b\n"                     // 11
                           "g CH TXT x\n"                       // 12
                           "other.example. IN A 192.0.2.1\n"    // 13
                           "h IN MX 10 mail\n";
  EXPECT_THAT(faults_of(text), ::testing::UnorderedElementsAre(
                                   "z.zone:5: not an IPv4 address", "z.zone:6: not an IPv6 address",
                                   "z.zone:7: the owner name is malformed", HasSubstr("z.zone:9: a quoted text"),
                                   "z.zone:11: f.z.test. has a second CNAME", HasSubstr("z.zone:12: only class IN"),
                                   HasSubstr("z.zone:13: other.example. is not within")));
}

TEST(ZoneFile, AFaultHasTheColumnOfItsToken) {
  EXPECT_THAT(places_of(std::string(kHead) + "www IN A 192.0.2.999\n"), ::testing::ElementsAre("5:10"));
  EXPECT_THAT(places_of(std::string(kHead) + "www IN A\n"), ::testing::ElementsAre("5:8")) << "the type";
  EXPECT_THAT(places_of(std::string(kHead) + "www IN MX 10 a..b\n"), ::testing::ElementsAre("5:14"));
  EXPECT_THAT(places_of(std::string(kHead) + "www IN TXT \"a\" \"\\256\"\n"), ::testing::ElementsAre("5:16"));
  EXPECT_THAT(places_of(std::string(kHead) + "www IN A ( ; of two lines\n  192.0.2.999 )\n"),
              ::testing::ElementsAre("6:3"));
  EXPECT_THAT(places_of(std::string(kHead) + "www IN TXT \"éé\" \"\\256\"\n"), ::testing::ElementsAre("5:17"))
      << "columns count characters";
  EXPECT_THAT(places_of(std::string(kHead) + "a 99999999999 A 192.0.2.1\nb NOSUCH x\nc ( A\n"),
              ::testing::ElementsAre("5:3", "6:3", "7:3"));
}

TEST(ZoneFile, WhatDependsOnAFaultIsNotReportedAgain) {
  EXPECT_THAT(faults_of("$ORIGIN z.test.\n@ 60 IN SOA ns\n"), ::testing::SizeIs(1))
      << "the SOA is there, and so may the NS be";
  EXPECT_THAT(faults_of(std::string(kHead) + "$ORIGIN a..b\nx A 1\n"), ::testing::SizeIs(1))
      << "the names that follow are not known";
}

TEST(ZoneFile, FaultsBeyondWhatAnybodyReadsAreDropped) {
  std::string text = kHead;
  for (size_t i = 0; i < 2 * kMaxFaults; ++i) text += "x A 1\n";
  const std::vector<std::string> faults = faults_of(text);
  ASSERT_EQ(faults.size(), kMaxFaults + 1);
  EXPECT_THAT(faults.back(), HasSubstr("more faults"));
}

TEST(ZoneFile, WhatAZoneMustNotHoldIsRefusedByName) {
  EXPECT_THAT(fault_of(""), HasSubstr("empty"));
  EXPECT_THAT(fault_of("$ORIGIN z.test.\n@ 60 IN NS ns\n"), HasSubstr("no SOA"));
  EXPECT_THAT(fault_of("$ORIGIN z.test.\n@ 60 IN SOA ns h 1 2 3 4 5\n"), HasSubstr("no NS"));
  EXPECT_THAT(fault_of(std::string(kHead) + "@ IN SOA ns h 2 2 3 4 5\n"), HasSubstr("second SOA"));
  EXPECT_THAT(fault_of(std::string(kHead) + "x IN SOA ns h 2 2 3 4 5\n"), HasSubstr("not at the zone's apex"));
  EXPECT_THAT(fault_of(std::string(kHead) + "www.other.test. IN A 192.0.2.1\n"),
              HasSubstr("www.other.test. is not within the zone z.test."));
  EXPECT_THAT(fault_of(std::string(kHead) + "www.xz.test. IN A 192.0.2.1\n"), HasSubstr("not within"));
  EXPECT_THAT(fault_of(std::string(kHead) + "c IN CNAME a\nc IN CNAME b\n"),
              HasSubstr("z.zone:6: c.z.test. has a second CNAME"));
  EXPECT_THAT(fault_of(std::string(kHead) + "c IN CNAME a\nc IN A 192.0.2.1\n"),
              HasSubstr("z.zone:6: c.z.test. has a CNAME and other records"));
  EXPECT_THAT(fault_of(std::string(kHead) + "$INCLUDE other.zone\n"), HasSubstr("z.zone:5: $INCLUDE: that file"));
  EXPECT_THAT(fault_of(std::string(kHead) + "c CH TXT x\n"), HasSubstr("class IN"));
}

TEST(ZoneFile, RepeatedRecordsAreOneAndAnRRsetHasItsLeastTtl) {
  Edge edge;
  edge.add_zone("z.test.",
                std::string(kHead) + "www 90 IN A 192.0.2.1\nwww 30 IN A 192.0.2.2\nwww 90 IN A 192.0.2.1\n");
  EXPECT_THAT(edge.ask("www.z.test", rrtype::kA).answers(),
              ::testing::ElementsAre("www.z.test. 30 IN A 192.0.2.1", "www.z.test. 30 IN A 192.0.2.2"));
}

// One line of a zone file, and its record as a client reads it.
struct Line {
  const char* text;
  const char* name;
  uint16_t type;
  const char* record;
};

// Forms that NSD and Knot accept must be accepted here, with the same meaning.
TEST(ZoneFile, EveryFormOfARecordIsRead) {
  const Line lines[] = {
      {"x 100 IN A 192.0.2.1", "x", 1, "x.z.test. 100 IN A 192.0.2.1"},
      {"x IN 100 A 192.0.2.1", "x", 1, "x.z.test. 100 IN A 192.0.2.1"},  // RFC 1035 §5.1
      {"x 100 A 192.0.2.1", "x", 1, "x.z.test. 100 IN A 192.0.2.1"},
      {"x in a 192.0.2.1", "x", 1, "x.z.test. 60 IN A 192.0.2.1"},
      {"x CLASS1 TYPE1 \\# 4 C0 000201", "x", 1, "x.z.test. 60 IN A 192.0.2.1"},
      {"x 1h30M A 192.0.2.1", "x", 1, "x.z.test. 5400 IN A 192.0.2.1"},
      {"x 2147483647 A 192.0.2.1", "x", 1, "x.z.test. 2147483647 IN A 192.0.2.1"},
      {"x 2147483648 A 192.0.2.1", "x", 1, "x.z.test. 0 IN A 192.0.2.1"},  // RFC 2181 §8
      {"x 4294967295 A 192.0.2.1", "x", 1, "x.z.test. 0 IN A 192.0.2.1"},
      {"x TYPE65280 \\# 0", "x", 65280, "x.z.test. 60 IN TYPE65280 \\# 0"},  // RFC 3597 §5
      {"x TYPE65280 \\# 3 01 0203", "x", 65280, "x.z.test. 60 IN TYPE65280 \\# 3 010203"},
      {"x TXT \"a b\" c \"x\\\"y\" \"\\065;(\"", "x", 16, "x.z.test. 60 IN TXT \"a b\" \"c\" \"x\\\"y\" \"A;(\""},
      {"x ( IN ; a comment (\n  TXT\n \"a\" ) ; another", "x", 16, "x.z.test. 60 IN TXT \"a\""},
      {"x L32 10 10.1.2.0", "x", 105, "x.z.test. 60 IN L32 10 10.1.2.0"},
      {"x L64 10 2001:0db8:1140:1000", "x", 106, "x.z.test. 60 IN L64 10 2001:0db8:1140:1000"},
      {"x LP 10 l64", "x", 107, "x.z.test. 60 IN LP 10 l64.z.test."},
      {"x NID 10 0014:4fff:ff20:ee64", "x", 104, "x.z.test. 60 IN NID 10 0014:4fff:ff20:ee64"},
      {"x CAA 0 issue \"ca.example\"", "x", 257, "x.z.test. 60 IN CAA 0 issue \"ca.example\""},
      {"x SRV 0 5 443 @", "x", 33, "x.z.test. 60 IN SRV 0 5 443 z.test."},
      {"x MX 10 .", "x", 15, "x.z.test. 60 IN MX 10 ."},
      {"x CNAME A\\.b.c", "x", 5, "x.z.test. 60 IN CNAME A\\.b.c.z.test."},
      {"a.*.z.test. A 192.0.2.1", "a.*", 1, "a.*.z.test. 60 IN A 192.0.2.1"},  // RFC 4592 §2.1.1
      {"0/25 NS ns.other.", "0/25", 2, nullptr},                               // RFC 2317
      {"x APL", "x", 42, nullptr},
  };
  for (const Line& line : lines) {
    Edge edge;
    edge.add_zone("z.test.", std::string(kHead) + line.text + "\n");
    const Answer answer = edge.ask(std::string(line.name) + ".z.test", line.type);
    ASSERT_TRUE(answer) << line.text;
    if (line.record != nullptr) EXPECT_THAT(answer.answers(), ::testing::ElementsAre(line.record)) << line.text;
    if (line.record == nullptr) EXPECT_EQ(answer.rcode(), 0) << line.text;
  }
}

TEST(ZoneFile, ATtlThatIsLeftOutIsTheLastStatedUnlessThereIsADefault) {
  Edge edge;
  edge.add_zone("z.test.",
                "@ 7 IN SOA ns h 1 2 3 4 500\n  IN NS ns\na A 192.0.2.1\nb 9 A 192.0.2.2\nc A 192.0.2.3\n"
                "$TTL 50\nd A 192.0.2.4\ne 3 A 192.0.2.5\nf A 192.0.2.6\n");
  const auto ttl_of = [&](const std::string& name) { return edge.ask(name + ".z.test", rrtype::kA).answers().at(0); };
  EXPECT_EQ(ttl_of("a"), "a.z.test. 7 IN A 192.0.2.1");
  EXPECT_EQ(ttl_of("c"), "c.z.test. 9 IN A 192.0.2.3");
  EXPECT_EQ(ttl_of("d"), "d.z.test. 50 IN A 192.0.2.4");
  EXPECT_EQ(ttl_of("f"), "f.z.test. 50 IN A 192.0.2.6") << "RFC 2308 §4";
}

TEST(ZoneFile, TheSameRecordTwiceIsOneAndIsTold) {
  std::string text = std::string(kHead) +
                     "c CNAME A\nc CNAME a.z.test.\nd DNAME e\nd DNAME e\n@ SOA NS h 1 2 3 4 5\n"
                     "m MX 65 mail\nm MX 97 mail\nm MX 65 MAIL\nt TXT a\nt TXT A\n";
  for (int i = 0; i < 300; ++i) text += fmt::format("many A 10.0.0.{}\n", i % 150);
  std::vector<Fault> faults;
  const auto zone = Zone::parse("z.test.", "z.zone", text, faults);
  ASSERT_NE(zone, nullptr) << faults[0].detail;
  EXPECT_EQ(zone->records(), 2U + 1 + 1 + 2 + 2 + 150);
  ASSERT_THAT(zone->warnings(), ::testing::SizeIs(21));
  EXPECT_EQ(zone->warnings()[0], "z.zone:9: the same record of z.test. stands twice: one is served");
  EXPECT_EQ(zone->warnings()[1], "z.zone:6: the same record of c.z.test. stands twice: one is served");
  EXPECT_EQ(zone->warnings()[20], "134 more records stand twice");
}

TEST(ZoneFile, MalformedRecordsAreToldWithTheirLine) {
  const std::pair<const char*, const char*> lines[] = {
      {"x A", "its data is incomplete"},
      {"x A 192.0.2.1 192.0.2.2", "too many parts"},
      {"x AAAA 192.0.2.1", "not an IPv6 address"},
      {"x MX 70000 a", "the preference"},
      {"x MX 10 a..b", "the domain name in its data is malformed"},
      {"x TXT \"\\256\"", "a text is malformed"},
      {"x CNAME "
       "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
       "the domain name in its data"},
      {"x TXT \"no end", "a quoted text does not end on its line"},
      {"x A ( 192.0.2.1", "a parenthesis that is never closed"},
      {"x A 192.0.2.1 )", "a closing parenthesis without one that opens"},
      {"x 99999999999 A 192.0.2.1", "the TTL '99999999999' is malformed"},
      {"x 60", "the record has no type"},
      {"x IN 60", "the record has no type"},
      {"x OPT \\# 0", "'OPT' is no type of a zone's records"},
      {"x AXFR", "'AXFR' is no type of a zone's records"},
      {"x NOSUCH a", "'NOSUCH' is no type of a zone's records"},
      {"x A \\# 5 0102030405", "\\# does not hold what its type has"},
      {"x CNAME \\# 2 C00C", "\\# does not hold what its type has"},
      {"x A \\# 0", "\\# does not hold what its type has"},
      {"x TYPE65280 \\# 2 01", "contradict each other"},
      {"x TYPE65280 \\# 1 0g", "hexadecimal"},
      {"x SOA ns", "z.zone:5: "},
      {"$TTL soon", "$TTL wants a number of seconds"},
      {"$ORIGIN", "$ORIGIN wants a domain name"},
      {"$GENERATE 1-9 a A 192.0.2.1", "$GENERATE is not known here"},
      {"$END-INCLUDED", "is not known here"},
      {"a..b A 192.0.2.1", "the owner name is malformed"},
      {"x\\", "a backslash at a line's end"},
  };
  for (const auto& [line, cause] : lines) {
    const std::string fault = fault_of(std::string(kHead) + line + "\n");
    EXPECT_THAT(fault, StartsWith("z.zone:5: ")) << line;
    EXPECT_THAT(fault, HasSubstr(cause)) << line;
  }
  EXPECT_THAT(fault_of(" A 192.0.2.1\n"), HasSubstr("z.zone:1: no owner name stands before this record"));
}

// Files are inserted into the text as in conf/zone_includes.h.
TEST(ZoneFile, AnIncludedFileHasItsOriginItsLinesAndItsEnd) {
  const std::string included =
      "$BEGIN-INCLUDED \"sub/more.zone\" sub\n@ A 192.0.2.1\n$TTL 5\n$ORIGIN deep\nx A 192.0.2.2\n";
  const std::string end = "$END-INCLUDED\n  AAAA 2001:db8::1\ny A 192.0.2.3\n";
  Edge edge;
  edge.add_zone("z.test.", std::string(kHead) + included + end);
  EXPECT_THAT(edge.ask("sub.z.test", rrtype::kA).answers(), ::testing::ElementsAre("sub.z.test. 60 IN A 192.0.2.1"));
  EXPECT_THAT(edge.ask("x.deep.sub.z.test", rrtype::kA).answers(),
              ::testing::ElementsAre("x.deep.sub.z.test. 5 IN A 192.0.2.2"));
  EXPECT_THAT(edge.ask("z.test", rrtype::kAaaa).answers(), ::testing::SizeIs(1)) << "the owner before the directive";
  EXPECT_THAT(edge.ask("y.z.test", rrtype::kA).answers(), ::testing::ElementsAre("y.z.test. 5 IN A 192.0.2.3"))
      << "$TTL goes on, as in BIND and NSD";
  EXPECT_THAT(fault_of(std::string(kHead) + included + "bad A x\n" + end), StartsWith("sub/more.zone:5: "));
  EXPECT_THAT(fault_of(std::string(kHead) + included + end + "bad A x\n"), StartsWith("z.zone:8: "));
  EXPECT_THAT(fault_of(std::string(kHead) + included + included + end + end + "bad A x\n"), StartsWith("z.zone:8: "));
}

// Anybody can write the marks of an included file into a zone.
TEST(ZoneFile, AMarkOfAnIncludedFileIsCheckedLikeADirective) {
  const std::string head(kHead);
  const std::string wants = "$BEGIN-INCLUDED wants the name of a file";
  EXPECT_THAT(fault_of(head + "$BEGIN-INCLUDED\ny A 192.0.2.1\n$END-INCLUDED\n"), HasSubstr("z.zone:5: " + wants));
  EXPECT_THAT(fault_of(head + "$BEGIN-INCLUDED \"\" sub\n"), HasSubstr(wants));
  EXPECT_THAT(fault_of(head + "$BEGIN-INCLUDED a sub more\n"), HasSubstr(wants));
  EXPECT_THAT(fault_of(head + "$END-INCLUDED\n"), HasSubstr("$END-INCLUDED is not known here"));
}

TEST(ZoneFile, AnOwnerWrittenLaterJoinsItsRRset) {
  Edge edge;
  edge.add_zone("z.test.", std::string(kHead) + "WWW IN A 192.0.2.1\nother IN A 192.0.2.9\nwww IN A 192.0.2.2\n");
  EXPECT_THAT(edge.ask("www.z.test", rrtype::kA).addresses(), ::testing::ElementsAre("192.0.2.1", "192.0.2.2"));
}

TEST(ZoneFile, TheNegativeTtlIsTheLesserOfTwo) {
  Edge edge;
  edge.add_zone("z.test.", "$ORIGIN z.test.\n@ 7 IN SOA ns h 1 2 3 4 500\n@ 60 IN NS ns\n");
  EXPECT_THAT(edge.ask("no.z.test", rrtype::kA).authorities().front(), StartsWith("z.test. 7 IN SOA"));
}

TEST(ZoneFile, TheRootCanBeServed) {
  Edge edge;
  edge.add_zone(".",
                ". 60 IN SOA ns. h. 1 2 3 4 5\n. 60 IN NS ns.\ntest. 60 IN NS ns.test.\nns.test. 60 IN A 192.0.2.1\n");
  EXPECT_THAT(edge.ask("", rrtype::kNs).answers(), ::testing::ElementsAre(". 60 IN NS ns."));
  EXPECT_THAT(edge.ask("a.test", rrtype::kA).authorities(), ::testing::ElementsAre("test. 60 IN NS ns.test."));
  EXPECT_EQ(edge.ask("none", rrtype::kA).rcode(), 3);
}

TEST(Names, TextAndWireAgree) {
  EXPECT_EQ(name_to_text(Name::from_text("WwW.Example.TEST")->wire()), "www.example.test.");
  EXPECT_EQ(name_to_text(Name::from_text(".")->wire()), ".");
  EXPECT_EQ(name_to_text(Name::from_text("a\\.b\\032c.test.")->wire()), "a\\.b\\032c.test.");
  for (const char* bad : {"a..b", ".a", "\\", "\\9", "\\999"}) EXPECT_FALSE(Name::from_text(bad)) << bad;
  EXPECT_FALSE(Name::from_text(std::string(64, 'a')));
  EXPECT_TRUE(Name::from_text(std::string(63, 'a')));
  std::string longest;
  for (int i = 0; i < 127; ++i) longest += "a.";
  EXPECT_EQ(Name::from_text(longest)->bytes(), 255U);
  EXPECT_FALSE(Name::from_text(longest + "b."));
}

TEST(Names, EveryByteIsLowerCasedAsAsciiSays) {
  for (int byte = 0; byte < 256; ++byte) {
    const uint8_t wire[] = {1, static_cast<uint8_t>(byte), 0};
    Name name;
    ASSERT_TRUE(name.parse(wire));
    const int lower = byte >= 'A' && byte <= 'Z' ? byte + 32 : byte;
    EXPECT_EQ(name.wire()[1], lower);
  }
}

// A second resolver, slow and directly from the text: owners in a map, RFC 1034 §4.3.2 step by step.
class NaiveZone {
 public:
  struct Record {
    std::string type, data;
  };
  std::map<std::string, std::vector<Record>> owners;  // relative to the apex: "a.b"; "" is the apex

  struct Verdict {
    std::string kind;  // "answer", "nodata", "nxdomain", "referral"
    std::set<std::string> data;
    bool operator==(const Verdict&) const = default;
  };

  bool exists(const std::string& name) const {
    for (const auto& [owner, records] : owners) {
      if (owner == name || (owner.size() > name.size() && owner.ends_with("." + name))) return true;
    }
    return name.empty();
  }
  static std::string parent(const std::string& name) {
    const size_t dot = name.find('.');
    return dot == std::string::npos ? "" : name.substr(dot + 1);
  }
  const std::vector<Record>* records(const std::string& name) const {
    const auto found = owners.find(name);
    return found == owners.end() ? nullptr : &found->second;
  }
  static std::set<std::string> data_of(const std::vector<Record>* records, const std::string& type) {
    std::set<std::string> data;
    if (records == nullptr) return data;
    for (const Record& record : *records) {
      if (record.type == type) data.insert(record.data);
    }
    return data;
  }

  Verdict ask(const std::string& name) const {
    // The topmost delegation on the path from the apex.
    std::vector<std::string> path;
    for (std::string at = name; !at.empty(); at = parent(at)) path.insert(path.begin(), at);
    for (const std::string& at : path) {
      if (auto servers = data_of(records(at), "NS"); !servers.empty()) return {"referral", servers};
    }
    const std::vector<Record>* found = records(name);
    if (!exists(name)) {
      std::string encloser = parent(name);
      while (!exists(encloser)) encloser = parent(encloser);
      const std::string wildcard = encloser.empty() ? "*" : "*." + encloser;
      if (!exists(wildcard)) return {"nxdomain", {}};
      found = records(wildcard);
    }
    auto data = data_of(found, "A");
    return data.empty() ? Verdict{"nodata", {}} : Verdict{"answer", data};
  }
};

TEST(ZoneTwin, RandomZonesAnswerAsTheNaiveResolverDoes) {
  std::mt19937 random(7);
  const std::vector<std::string> labels{"a", "b", "c", "*"};
  const auto random_name = [&](size_t depth) {
    std::string name;
    for (size_t i = 0; i < depth; ++i) name += (i == 0 ? "" : ".") + labels[random() % labels.size()];
    return name;
  };
  size_t kinds[4] = {};
  for (int round = 0; round < 60; ++round) {
    NaiveZone naive;
    std::string text = kHead;
    for (int i = 0; i < 8; ++i) {
      const std::string owner = random_name(1 + random() % 4);
      // RFC 4592 §4.2 leaves "*" with NS undefined.
      const bool cut = random() % 5 == 0 && owner.find('*') == std::string::npos;
      const std::string data = cut ? "ns.elsewhere.test." : "192.0.2." + std::to_string(i);
      naive.owners[owner].push_back({cut ? "NS" : "A", data});
      text += owner + " IN " + (cut ? "NS " : "A ") + data + "\n";
    }
    Edge edge;
    edge.add_zone("z.test.", text);
    for (int i = 0; i < 200; ++i) {
      const std::string name = random_name(1 + random() % 5);
      const NaiveZone::Verdict expected = naive.ask(name);
      const Answer answer = edge.ask(name + ".z.test", rrtype::kA);
      ASSERT_TRUE(answer);
      NaiveZone::Verdict seen;
      const auto addresses = answer.addresses();
      if (answer.rcode() == 3) {
        seen.kind = "nxdomain";
      } else if (!answer.aa()) {
        seen = {"referral", {"ns.elsewhere.test."}};
      } else {
        seen = {addresses.empty() ? "nodata" : "answer", {addresses.begin(), addresses.end()}};
      }
      ASSERT_EQ(seen.kind, expected.kind) << name << " in\n" << text;
      ASSERT_EQ(seen.data, expected.data) << name << " in\n" << text;
      ++kinds[expected.kind == "answer" ? 0 : expected.kind == "nodata" ? 1 : expected.kind == "nxdomain" ? 2 : 3];
    }
  }
  for (const size_t kind : kinds) EXPECT_GT(kind, 100U) << "the rounds must have met every kind";
}

}  // namespace tidegate::dns::test::zone_test
