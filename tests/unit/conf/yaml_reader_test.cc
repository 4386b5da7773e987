// SPDX-License-Identifier: Apache-2.0
// Which YAML is refused, whatever its keys mean.
#include "conf/yaml_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "conf/text.h"
#include "tests/unit/conf/documents.h"

namespace tidegate::yaml_reader_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::unique_ptr<DocumentNode> read(const std::string& text, std::vector<Fault>& faults) {
  FaultList list(faults, "edge.yaml");
  return read_yaml(text, list);
}

std::vector<Fault> faults_of(const std::string& text) {
  std::vector<Fault> faults;
  read(text, faults);
  return faults;
}

std::vector<std::string> codes_of(const std::string& text) {
  std::vector<std::string> codes;
  for (const Fault& fault : faults_of(text)) codes.push_back(fault.code);
  return codes;
}

// A bad byte at each position of an aligned word, of an unaligned one and of the rest.
TEST(Unreadable, EachByteAtEachPlaceIsFound) {
  for (int byte = 0; byte < 256; ++byte) {
    const bool readable = byte == '\t' || byte == '\n' || byte == '\r' || (byte >= 0x20 && byte < 0x80);
    for (size_t at = 0; at < 29; ++at) {
      std::string text = "abcdefghijklmnopqrstuvwxyz012";
      text[at] = static_cast<char>(byte);
      ASSERT_EQ(find_unreadable(text), readable ? std::string::npos : at) << "byte " << byte << " at " << at;
    }
  }
  EXPECT_EQ(find_unreadable("1234567\xc3\xa4"
                            "abcdefg\x01"),
            16U);
}

TEST(YamlReader, KeepsThePlaceOfEveryKeyAndValue) {
  std::vector<Fault> faults;
  const auto root = read("pools:\n  - name: app\n", faults);
  ASSERT_NE(root, nullptr);
  const DocumentNode& name = root->children[0].children[0].children[0];
  EXPECT_EQ(name.key, "name");
  EXPECT_EQ(name.key_line, 2U);
  EXPECT_EQ(name.key_column, 5U);
  EXPECT_EQ(name.line, 2U);
  EXPECT_EQ(name.column, 11U);
}

TEST(YamlReader, NamesBothPlacesOfADuplicateKey) {
  const auto faults = faults_of("pools:\n  - name: a\n    port: 1\n    name: b\n");
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].code, "duplicate_key");
  EXPECT_EQ(faults[0].pointer, "/pools/0/name");
  EXPECT_EQ(faults[0].line, 4U);
  EXPECT_EQ(faults[0].hint, "the first is at line 2, column 5");
}

TEST(YamlReader, ReportsEveryDuplicateAndEveryStrangeNumberInOneRun) {
  EXPECT_THAT(codes_of("a: 010\na: 0x1f\nb: [0o17, 1, 10, 0]\nb: 2\n"),
              ElementsAre("not_decimal", "not_decimal", "not_decimal", "duplicate_key", "duplicate_key"));
}

TEST(YamlReader, TakesQuotedTextThatLooksLikeAStrangeNumber) {
  EXPECT_THAT(codes_of("a: '010'\nb: \"0x1f\"\n"), IsEmpty());
}

TEST(YamlReader, ReadsAliasesAsCopiesOfWhatTheyName) {
  std::vector<Fault> faults;
  const auto root = read("a: &x {k: 1}\nb: *x\n", faults);
  ASSERT_NE(root, nullptr);
  EXPECT_EQ(root->find("b")->find("k")->text, "1");
  EXPECT_EQ(root->find("b")->key, "b");
}

TEST(YamlReader, StopsAnAliasBombBeforeItGrows) {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    std::string line = "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + last;
    for (int k = 0; k < 9; ++k) line += ", " + last;
    bomb += line + "]\n";
  }
  const auto faults = faults_of(bomb);
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_THAT(faults[0].detail, HasSubstr("aliases multiply"));
}

TEST(YamlReader, RefusesAnAliasInsideOfWhatItNames) { EXPECT_THAT(codes_of("a: &a [1, *a]\n"), ElementsAre("syntax")); }

TEST(YamlReader, BoundsNestingInEveryStyle) {
  const std::string deep(100'000, '[');
  EXPECT_THAT(codes_of(deep), ElementsAre("syntax"));
  EXPECT_THAT(codes_of(std::string(100'000, '{')), ElementsAre("syntax"));
  std::string dashes;
  for (int i = 0; i < 20'000; ++i) dashes += "- ";
  EXPECT_THAT(codes_of(dashes), ElementsAre("syntax"));
}

TEST(YamlReader, RefusesWhatOneDocumentOfPlainMapsNeverHolds) {
  for (const char* text :
       {"a: 1\n---\nb: 2\n", "a: !custom 1\n", "a: !!binary aGk=\n", "? [a]\n: 1\n", "? {a: b}\n: 1\n", ": 1\n",
        "a: *gone\n", "a: \"\\q\"\n", "a: 'open\n", "a: {b: 1\n", "a: [1, 2\n", "\ta: 1\n  b: 2\n", "a: b: c\n"}) {
    EXPECT_THAT(codes_of(text), ElementsAre("syntax")) << text;
  }
}

TEST(YamlReader, TellsOpenQuotesFromClosedOnesAndFromBlocks) {
  for (const char* text : {"a: 'open\n", "a: \"open\\\"\n", "a: 'it''s\nb: 1\n", "a: &x 'open\n"}) {
    EXPECT_THAT(codes_of(text), ElementsAre("syntax")) << text;
  }
  for (const char* text :
       {"a: 'it''s'\n", "a: \"\\\"\"\n", "a: |\n  it's\n", "a: &x 'b'", "a: 'b\n  c'\n", "'a': 1\n"}) {
    EXPECT_THAT(codes_of(text), IsEmpty()) << text;
  }
}

TEST(YamlReader, SaysWhereBytesAreNotText) {
  const auto faults = faults_of("a: 1\nb: caf\xe9\n");
  ASSERT_EQ(faults.size(), 1U);
  EXPECT_EQ(faults[0].line, 2U);
  EXPECT_EQ(faults[0].column, 7U);
  EXPECT_THAT(faults[0].detail, HasSubstr("0xe9"));
  EXPECT_THAT(codes_of(std::string("a: \0", 4)), ElementsAre("syntax"));
  EXPECT_THAT(codes_of("\xff\xfe"
                       "a\n"),
              ElementsAre("syntax"));
}

TEST(YamlReader, IgnoresAByteOrderMark) {
  EXPECT_THAT(codes_of("\xef\xbb\xbf"
                       "a: 1\n"),
              IsEmpty());
}

TEST(YamlReader, RefusesADocumentBeyondItsBound) {
  EXPECT_THAT(codes_of(std::string(kMaxDocumentBytes + 1, ' ')), ElementsAre("too_large"));
}

}  // namespace tidegate::yaml_reader_test
