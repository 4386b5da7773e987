// SPDX-License-Identifier: Apache-2.0
// The reader of plain YAML and yaml-cpp are twins: if the first one accepts a document, both give the same tree, with
// the same places.
#include "conf/yaml_plain.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>

#include "conf/yaml_reader.h"
#include "tests/unit/conf/trees.h"

namespace tidegate::yaml_plain_test {

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Takes the events and forgets them.
class Nobody : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t, const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

bool is_plain(const std::string& text) {
  Nobody nobody;
  return read_plain_yaml(text, nobody);
}

void expect_twins(const std::string& text) {
  const ReadTree any = read_tree(text, YamlWay::any), theirs = read_tree(text, YamlWay::yaml_cpp);
  EXPECT_EQ(any.faults, theirs.faults) << text;
  EXPECT_EQ(any.tree, theirs.tree) << text;
}

TEST(PlainYaml, ReadsWhatConfigurationsConsistOf) {
  for (const char* text : {
           "a: 1\n",
           "a: 1",
           "# only\na: b c  # d\n\n  # more\nb: x#y\n",
           "a:\n  b: 1\n  c:\n    - 1\n    - 2\nd: e\n",
           "a:\n- b\n- c\nd: [1, 2]\n",
           "pools:\n  - name: x\n    port: 80\n    more:\n      deep: 1\n    list:\n    - q\n  - name: y\n",
           "a: {b: 1, c: [x, {y: z}], d: {}, e: []}\n",
           "a: {b: 2001:db8::1, c: 10.0.0.0/8, d: \"x, y\", e: 'it', f: -74.5}\n",
           "a: [2001:db8::/32, www.example.test, 0/25.2.0.192.in-addr.arpa]\n",
           "a: http://x.test/y?z\nb: '*'\nc: \"\"\n",
           "a:   \n  - {b: c}   # d\n",
           "a-b_c: d\n0: 1\n",
       }) {
    expect_twins(text);
    if (std::string_view(text).find('?') == std::string_view::npos) EXPECT_TRUE(is_plain(text)) << text;
  }
}

TEST(PlainYaml, LeavesEverythingElseToTheOther) {
  for (const char* text : {
           "",
           "#\n",
           "- a\n",
           "a\n",
           "a:\n",
           "a: ~\n",
           "a: null\n",
           "a:\n  b:\nc: d\n",
           "a: &x b\nc: *x\n",
           "a: !!str b\n",
           "a: |\n  b\n",
           "a: b\n  c\n",
           "a: \"b\n  c\"\n",
           "a: \"b\\n\"\n",
           "a: 'it''s'\n",
           "---\na: b\n",
           "a: b\n...\n",
           "%YAML 1.2\n---\na: b\n",
           "a:\tb\n",
           "a: b\r\n",
           "? a\n: b\n",
           "a: [b,\n  c]\n",
           "a: [b, ]\n",
           "a: {b}\n",
           "a: {b: }\n",
           "a: b: c\n",
           "a: - b\n",
           "a:\n  b: 1\n c: 2\n",
           "  a: b\n",
           "a: b\n  - c\n",
           "\"a\": b\n",
           "a: [b\n",
           "a: {b: c\n",
           "a: @b\n",
           "a: `b\n",
           "a: ,b\n",
           "a: b\nc\n",
           "a:\n  - b\n  c: d\n",
           "a:\n - b\n  - c\n",
           "a:\n  - - b\n",
           "a: [\"b\"c]\n",
           "null: b\n",
           "a: \xc3\xa9\n",
       }) {
    EXPECT_FALSE(is_plain(text)) << text;
    expect_twins(text);
  }
}

TEST(PlainYaml, FaultsAreTheSame) {
  for (const char* text : {"a: 1\na: 2\n", "a: 010\n", "a: {b: 1, b: 2}\n", "a: [0x1f]\n"}) expect_twins(text);
  std::string deep = "a: ";
  for (int i = 0; i < 80; ++i) deep += "[";
  for (int i = 0; i < 80; ++i) deep += "]";
  expect_twins(deep + "\n");
}

TEST(PlainYaml, EveryExampleIsReadAlike) {
  size_t documents = 0, plain = 0;
  const std::filesystem::path root(TIDEGATE_SOURCE_DIR);
  for (const auto* folder : {"conf/examples", "packaging", "tests/lab/conf", "tests/fuzz/conf/corpus"}) {
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      if (!entry.is_regular_file()) continue;
      const std::string text = read_file(entry.path());
      expect_twins(text);
      ++documents;
      plain += is_plain(text) ? 1 : 0;
    }
  }
  EXPECT_GT(documents, 10U);
  EXPECT_GT(plain, 5U) << "of " << documents;
}

// Random documents made of pieces that could be confused.
void read_random_documents(int count) {
  std::mt19937 dice(11);
  const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(dice() % bound); };
  const char* const pieces[] = {"a",  "b: ", "- ", "\n", "\n  ", "\n    ", "\n- ", ": ",   ":",
                                "{",  "}",   "[",  "]",  ", ",   ",",      " ",    "#",    " #",
                                "\"", "'",   "1",  "::", "-",    "?",      "*",    "&x",   "!x",
                                "|",  ">",   "%",  "~",  "/",    "\\",     "=",    "c: d", "\n  - e: f"};
  size_t plain = 0;
  for (int i = 0; i < count; ++i) {
    std::string text = below(2) == 0 ? "k: " : "k:\n  ";
    for (uint32_t n = 1 + below(9); n > 0; --n) text += pieces[below(std::size(pieces))];
    if (below(2) == 0) text += "\nz: 1\n";
    expect_twins(text);
    plain += is_plain(text) ? 1 : 0;
    if (::testing::Test::HasFailure()) return;
  }
  EXPECT_GT(plain, static_cast<size_t>(count) / 40);
}

TEST(PlainYaml, RandomDocumentsAreReadAlike) { read_random_documents(5'000); }
TEST(LongPlainYaml, RandomDocumentsAreReadAlike) { read_random_documents(20'000); }

}  // namespace tidegate::yaml_plain_test
