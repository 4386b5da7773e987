#include "dns/zone.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <random>
#include <set>

#include "tests/unit/dns/support.h"

namespace tidegate::dns::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

constexpr char kHead[] = "$ORIGIN z.test.\n$TTL 60\n@ IN SOA ns h 1 2 3 4 5\n@ IN NS ns\n";

std::string fault_of(const std::string& text) {
  const auto zone = Zone::parse("z.test.", "z.zone", text);
  return zone ? "no fault" : zone.error().message;
}

TEST(ZoneFile, AFaultNamesFileLineAndCause) {
  EXPECT_THAT(fault_of(std::string(kHead) + "www IN A 192.0.2.1\nbad IN A 192.0.2.999\n"), StartsWith("z.zone:6: "));
  EXPECT_THAT(fault_of(std::string(kHead) + "\n; a comment\nbad IN NOSUCHTYPE x\n"), StartsWith("z.zone:7: "));
  EXPECT_THAT(fault_of(std::string(kHead) + "x IN TXT ( \"a\"\n \"b\" )\nbad IN MX mail\n"), HasSubstr("z.zone:"));
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
  EXPECT_THAT(fault_of(std::string(kHead) + "$INCLUDE other.zone\n"), HasSubstr("z.zone:5: $INCLUDE is not supported"));
  EXPECT_THAT(fault_of(std::string(kHead) + "c CH TXT x\n"), HasSubstr("class IN"));
}

TEST(ZoneFile, RepeatedRecordsAreOneAndAnRRsetHasItsLeastTtl) {
  Edge edge;
  edge.add_zone("z.test.",
                std::string(kHead) + "www 90 IN A 192.0.2.1\nwww 30 IN A 192.0.2.2\nwww 90 IN A 192.0.2.1\n");
  EXPECT_THAT(edge.ask("www.z.test", rrtype::kA).answers(),
              testing::ElementsAre("www.z.test. 30 IN A 192.0.2.1", "www.z.test. 30 IN A 192.0.2.2"));
}

TEST(ZoneFile, AnOwnerWrittenLaterJoinsItsRRset) {
  Edge edge;
  edge.add_zone("z.test.", std::string(kHead) + "WWW IN A 192.0.2.1\nother IN A 192.0.2.9\nwww IN A 192.0.2.2\n");
  EXPECT_THAT(edge.ask("www.z.test", rrtype::kA).addresses(), testing::ElementsAre("192.0.2.1", "192.0.2.2"));
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
  EXPECT_THAT(edge.ask("", rrtype::kNs).answers(), testing::ElementsAre(". 60 IN NS ns."));
  EXPECT_THAT(edge.ask("a.test", rrtype::kA).authorities(), testing::ElementsAre("test. 60 IN NS ns.test."));
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

// A second resolver, slow and from the text alone: owners in a map, RFC 1034 §4.3.2 step by step.
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
    // The topmost delegation on the way down.
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
      // "*" with NS is a name that RFC 4592 §4.2 leaves undefined.
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

}  // namespace
}  // namespace tidegate::dns::test
