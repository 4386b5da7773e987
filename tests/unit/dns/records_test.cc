// SPDX-License-Identifier: Apache-2.0
// One set of records is changed within a zone file: afterwards only it differs, whatever the file looks like.
#include "dns/plan/records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

#include "conf/zone_includes.h"
#include "dns/zone/zone.h"

namespace tidegate::dns::test::records_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

const Name kApex = *Name::from_text("example.test.");

// Every record as "name ttl type data", sorted; the SOA without its serial.
std::multiset<std::string> records_of(const std::string& text) {
  std::multiset<std::string> records;
  for (const RecordSet& set : list_records(kApex, "z", text, {}, 0, SIZE_MAX).sets) {
    for (std::string data : set.data) {
      if (set.type == "SOA") data = "soa";
      records.insert(set.name + " " + std::to_string(set.ttl_s) + " " + set.type + " " + data);
    }
  }
  return records;
}

uint32_t serial_of(const std::string& text) {
  const auto soa = list_records(kApex, "z", text, {kApex, rrtype::kSoa}, 0, 1).sets;
  EXPECT_THAT(soa, SizeIs(1));
  std::istringstream data(soa.at(0).data.at(0));
  std::string mname, rname;
  uint32_t serial = 0;
  data >> mname >> rname >> serial;
  return serial;
}

EditedZone edit(const std::string& text, const std::string& name, const std::string& type,
                const std::vector<std::string>& data, std::optional<uint32_t> ttl_s = std::nullopt) {
  return edit_records(kApex, "z", text, {*record_name(kApex, name), record_type(type), ttl_s, data});
}

constexpr const char* kZone = R"(; a comment that stays
$TTL 300
@   IN SOA ns hostmaster ( 2026010101 ; the serial
                           3600 600 604800 60 )
    IN NS ns
ns  IN A 192.0.2.53
www 60 IN A 192.0.2.1 ; the first
    60 IN A 192.0.2.2
       IN AAAA 2001:db8::1
mail IN MX 10 www
)";

TEST(ZoneRecords, ASetIsReplacedWhereItStandsAndAllElseStays) {
  const EditedZone edited = edit(kZone, "www", "A", {"192.0.2.9"}, 30);
  ASSERT_THAT(edited.faults, IsEmpty());
  EXPECT_TRUE(edited.existed && edited.changed);
  EXPECT_EQ(edited.text, R"(; a comment that stays
$TTL 300
@   IN SOA ns hostmaster ( 2026010102 ; the serial
                           3600 600 604800 60 )
    IN NS ns
ns  IN A 192.0.2.53
www.example.test. 30 IN A 192.0.2.9
www.example.test. IN AAAA 2001:db8::1
mail IN MX 10 www
)");
}

TEST(ZoneRecords, WhatIsThereAlreadyChangesNothing) {
  const EditedZone same = edit(kZone, "WWW.example.test.", "a", {"192.0.2.2", "192.0.2.1"}, 60);
  EXPECT_FALSE(same.changed);
  EXPECT_EQ(same.text, kZone) << "not even the serial";
  EXPECT_FALSE(edit(kZone, "www", "A", {"192.0.2.2", "192.0.2.1"}).changed) << "the TTL is that of the set";
  EXPECT_TRUE(edit(kZone, "www", "A", {"192.0.2.2", "192.0.2.1"}, 61).changed);
  EXPECT_FALSE(edit(kZone, "nobody", "A", {}).existed);
}

TEST(ZoneRecords, ANewSetComesAtTheEndAndARemovedOneIsGone) {
  const EditedZone added = edit(kZone, "new.sub", "TXT", {"\"a; b\" c", "d"});
  ASSERT_THAT(added.faults, IsEmpty());
  EXPECT_FALSE(added.existed);
  EXPECT_THAT(added.text, HasSubstr("mail IN MX 10 www\nnew.sub.example.test. 3600 IN TXT \"a; b\" \"c\"\n"));
  const EditedZone removed = edit(added.text, "new.sub", "TXT", {});
  EXPECT_EQ(records_of(removed.text), records_of(kZone));
  EXPECT_EQ(serial_of(removed.text), 2026010103U);
}

TEST(ZoneRecords, ThoseWithoutOwnerOrTtlKeepThemWhenTheLineBeforeGoes) {
  const std::string text =
      "@ 100 IN SOA ns hostmaster 1 2 3 4 5\n IN NS ns\nns 200 A 192.0.2.53\nwww 30 A 192.0.2.1\n TXT \"of www\"\nmail "
      "A "
      "192.0.2.25\n";
  const EditedZone removed = edit(text, "www", "A", {});
  ASSERT_THAT(removed.faults, IsEmpty());
  auto wanted = records_of(text);
  wanted.erase("www.example.test. 30 A 192.0.2.1");
  EXPECT_EQ(records_of(removed.text), wanted) << removed.text;
  EXPECT_THAT(removed.text, HasSubstr("www.example.test. 30 TXT \"of www\"\nmail A"));
}

TEST(ZoneRecords, TheSerialWrapsAndTheSoaItselfIsAsItIsPut) {
  const std::string last = "@ IN SOA ns hostmaster 4294967295 2 3 4 5\n@ IN NS ns\nns A 192.0.2.53\n";
  EXPECT_EQ(serial_of(edit(last, "www", "A", {"192.0.2.1"}).text), 0U)
      << "RFC 1982: after the highest comes the lowest";
  const EditedZone soa = edit(last, "@", "SOA", {"ns hostmaster 77 2 3 4 5"});
  EXPECT_EQ(serial_of(soa.text), 77U);
}

TEST(ZoneRecords, DataCannotBringOtherRecordsOrDirectives) {
  const std::vector<std::string> bad_ones = {"192.0.2.1\nevil A 192.0.2.6",
                                             "192.0.2.1 (",
                                             "192.0.2.1 \"",
                                             "$INCLUDE x",
                                             "",
                                             "; x",
                                             "192.0.2.256",
                                             "192.0.2.1\x01"};
  for (const std::string& bad : bad_ones) {
    const EditedZone edited = edit(kZone, "www", "A", {"192.0.2.7", bad});
    ASSERT_THAT(edited.faults, SizeIs(1)) << bad;
    EXPECT_EQ(edited.faults[0].pointer, "/data/1");
    EXPECT_EQ(edited.faults[0].code, "bad_record");
    EXPECT_GT(edited.faults[0].column, 0U);
  }
  const EditedZone placed = edit(kZone, "mail", "MX", {"10 ..bad"});
  ASSERT_THAT(placed.faults, SizeIs(1));
  EXPECT_EQ(placed.faults[0].column, 4U) << "where the name begins in the data";
  EXPECT_EQ(placed.faults[0].line_text, "10 ..bad");
}

TEST(ZoneRecords, EveryFaultOfTheDataIsTold) {
  EXPECT_THAT(edit(kZone, "www", "A", {"x", "192.0.2.7", "y"}).faults, SizeIs(2));
}

TEST(ZoneRecords, NamesAreBelowTheZoneOrRefused) {
  EXPECT_EQ(record_name(kApex, "@")->wire().size(), kApex.wire().size());
  EXPECT_TRUE(record_name(kApex, "*.wild"));
  EXPECT_TRUE(record_name(kApex, "www.example.test."));
  for (const char* bad : {"", "www.other.test.", "a..b", "test.", "."}) EXPECT_FALSE(record_name(kApex, bad)) << bad;
  EXPECT_FALSE(record_name(kApex, std::string(300, 'a')));
  EXPECT_EQ(record_type("https"), rrtype::kHttps);
  for (const char* bad : {"", "ANY", "AXFR", "OPT", "NOPE", "TYPE0", "TYPE65536"})
    EXPECT_EQ(record_type(bad), 0) << bad;
}

TEST(ZoneRecords, TypesThatLdnsCannotWriteAreWrittenAsBytes) {
  for (const auto& [type, data] : {std::pair("TYPE65280", "\\# 3 010203"),
                                   {"NULL", "\\# 0"},
                                   {"CAA", "0 issue \"ca.test\""},
                                   {"HTTPS", "1 . alpn=h2 ipv4hint=192.0.2.1"},
                                   {"SRV", "1 2 3 www"},
                                   {"APL", "1:192.0.2.0/24"}}) {
    const EditedZone edited = edit(kZone, "x", type, {data});
    ASSERT_THAT(edited.faults, IsEmpty()) << type << ": " << edited.faults.front().detail;
    const auto sets = list_records(kApex, "z", edited.text, {*record_name(kApex, "x"), 0}, 0, 9).sets;
    ASSERT_THAT(sets, SizeIs(1)) << type;
    EXPECT_FALSE(edit(edited.text, "x", type, sets[0].data).changed) << "what is listed is what is there: " << type;
  }
}

std::string with_include() {
  std::string error;
  const auto whole = put_includes_in(
      "z",
      "@ 60 IN SOA ns hostmaster 1 2 3 4 5\n IN NS ns\nns A 192.0.2.53\n$INCLUDE part.inc sub\n TXT \"of ns\"\nlast A "
      "192.0.2.3\n",
      [](const std::string&, std::string&) {
        return std::make_shared<const std::string>(" TXT \"of ns too\"\n@ A 192.0.2.1\nwww A 192.0.2.2\n");
      },
      error);
  EXPECT_NE(whole, nullptr) << error;
  return *whole;
}

TEST(ZoneRecords, IncludedFilesBelongToTheZone) {
  const std::string text = with_include();
  const auto sets = list_records(kApex, "z", text, {*record_name(kApex, "www.sub"), 0}, 0, 9).sets;
  ASSERT_THAT(sets, SizeIs(1));
  EXPECT_EQ(sets[0].file, "part.inc");
  EXPECT_EQ(sets[0].line, 3U);
  const EditedZone edited = edit(text, "www.sub", "A", {"192.0.2.9"});
  ASSERT_THAT(edited.faults, IsEmpty());
  auto wanted = records_of(text);
  wanted.erase("www.sub.example.test. 60 A 192.0.2.2");
  wanted.insert("www.sub.example.test. 60 A 192.0.2.9");
  EXPECT_EQ(records_of(edited.text), wanted);
  // The owner of the line after the included file is still ns, which is before it.
  EXPECT_EQ(records_of(edited.text).count("ns.example.test. 60 TXT \"of ns\""), 1U);
}

TEST(ZoneRecords, AnExportedFileIsOneFileWithTheSameRecords) {
  const std::string text = with_include();
  const std::string exported = without_include_marks(kApex, "z", text);
  EXPECT_EQ(exported.find(kIncludeBegins), std::string::npos) << exported;
  EXPECT_EQ(records_of(exported), records_of(text)) << exported;
  EXPECT_EQ(without_include_marks(kApex, "z", kZone), kZone) << "what includes nothing is exported as it is";
}

// A twin: the records as a set. Random files, in all spellings, and random changes of them.
TEST(ZoneRecords, RandomChangesDoWhatTheySayAndNothingElse) {
  std::mt19937 dice(7);
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(dice() % bound); };
  const char* const names[] = {"@", "a", "b", "c.d", "*.w", "mail"};
  const auto random_record = [&](std::string& type) {
    type = below(2) == 0 ? "A" : below(2) == 0 ? "TXT" : "MX";
    return type == "A"     ? "192.0.2." + std::to_string(below(4))
           : type == "TXT" ? "\"t" + std::to_string(below(3)) + "\""
                           : std::to_string(below(3)) + " mail";
  };
  size_t changes = 0;
  for (int file = 0; file < 60; ++file) {
    std::string text = below(2) == 0 ? "$TTL 300\n" : "";
    text += "@ 60 IN SOA ns hostmaster 1 2 3 4 5\n IN NS ns\nns IN A 192.0.2.53\n";
    for (int i = 0; i < 12; ++i) {
      std::string type;
      const std::string data = random_record(type);
      if (below(8) == 0) text += "; a comment\n\n";
      if (below(8) == 0) text += below(2) == 0 ? "$ORIGIN sub.example.test.\n" : "$ORIGIN example.test.\n";
      text += below(3) == 0 ? "  " : std::string(names[below(6)]) + " ";
      if (below(3) == 0) text += std::to_string(60 * (1 + below(3))) + " ";
      if (below(2) == 0) text += "IN ";
      text += type + (below(4) == 0 ? " (\n " + data + " ) ; grouped" : " " + data) +
              (i == 11 && below(2) == 0 ? "" : "\n");
    }
    for (int i = 0; i < 6; ++i) {
      const auto before = list_records(kApex, "z", text, {}, 0, SIZE_MAX).sets;
      std::string type, name = names[below(6)];
      std::vector<std::string> data;
      for (uint32_t n = below(3); n > 0; --n) data.push_back(random_record(type));
      if (data.empty()) random_record(type);
      if (below(2) == 0) {  // a set that exists
        const RecordSet& known = before[below(static_cast<uint32_t>(before.size()))];
        if (known.type == "SOA" || known.type == "NS") continue;
        name = known.name;
        if (known.type != type) data.clear();
        type = known.type;
      }
      std::erase_if(data, [&, first = type](const std::string& each) {
        return (first == "A") != each.starts_with("192") || (first == "TXT") != each.starts_with("\"");
      });
      const EditedZone edited = edit(text, name, type, data, 45);
      ASSERT_THAT(edited.faults, IsEmpty()) << edited.faults[0].detail << "\n" << text;
      auto wanted = records_of(text);
      const std::string owner = name.ends_with('.') ? name : name == "@" ? "example.test." : name + ".example.test.";
      std::erase_if(wanted, [&](const std::string& each) {
        return each.starts_with(owner + " ") && each.find(" " + type + " ") != std::string::npos;
      });
      std::set<std::string> once;
      for (const std::string& each : data) {
        once.insert(owner + " 45 " + type + " " + each + (type == "MX" ? ".example.test." : ""));
      }
      wanted.insert(once.begin(), once.end());
      ASSERT_EQ(records_of(edited.text), wanted) << text << "\n->\n" << edited.text;
      changes += edited.changed ? 1 : 0;
      text = edited.text;
    }
  }
  EXPECT_GT(changes, 100U);
}

}  // namespace tidegate::dns::test::records_test
