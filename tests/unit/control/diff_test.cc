// SPDX-License-Identifier: Apache-2.0
#include "control/api/diff.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "conf/fields.h"

namespace tidegate::diff_test {

using ::testing::ElementsAre;

TEST(DiffLines, MarksWhatChangedWithALittleAroundIt) {
  EXPECT_THAT(diff_lines("a\nb\nc\nd\ne\nf\ng\n", "a\nb\nc\nd\nE\nf\ng\n"),
              ElementsAre("@@", "  c", "  d", "- e", "+ E", "  f", "  g"));
  EXPECT_THAT(diff_lines("", "a\n"), ElementsAre("+ a"));
  EXPECT_THAT(diff_lines("a\n", ""), ElementsAre("- a"));
}

TEST(DiffLines, KeepsAMovedLineAsOneRemovalAndOneAddition) {
  EXPECT_THAT(diff_lines("a\nb\nc\n", "b\nc\na\n"), ElementsAre("- a", "  b", "  c", "+ a"));
}

TEST(DiffLines, ReplacesTheMiddleWholeWhenComparingWouldCostTooMuch) {
  std::string before, after;
  for (int i = 0; i < 3000; ++i) {
    before += "a" + std::to_string(i) + "\n";
    after += "b" + std::to_string(i) + "\n";
  }
  EXPECT_EQ(diff_lines(before, after).size(), 6000u);
}

TEST(Compare, NamesEachObjectThatWasAddedChangedOrRemoved) {
  const std::vector<ManifestEntry> from = {{"pools", "a", "1"}, {"pools", "b", "2"}, {"routes", "r", "3"}};
  const std::vector<ManifestEntry> to = {{"pools", "b", "9"}, {"routes", "q", "4"}, {"routes", "r", "3"}};
  std::vector<std::string> told;
  for (const ObjectChange& change : compare(from, to))
    told.push_back(std::string(name(change.change)) + " " + change.name);
  EXPECT_THAT(told, ElementsAre("removed a", "changed b", "added q"));
}

TEST(Redact, HidesSecretsAtAnyDepth) {
  nlohmann::json value = {{"accounts",
                           {{{"id", "1"},
                             {"secret", "s3cret"},
                             {"other_secrets", {"s3cret-too"}},
                             {"aes_key", "s3cret-key"},
                             {"des_key", "s3cret-d"},
                             {"tokens", {"s3cret-token"}}}}}};
  redact(value);
  EXPECT_EQ(value.dump().find("s3cret"), std::string::npos);
  EXPECT_EQ(value["accounts"][0]["id"], "1");
}

TEST(Redact, HidesSecretsOfPoliciesAndOrders) {
  nlohmann::json value = {{"policies",
                           {{{"limit", {{"shared", {{"address", "192.0.2.1:6379"}, {"password", "s3cret"}}}}},
                             {"authenticate",
                              {{"basic", {{"users", {{{"name", "amy"}, {"password", "s3cret-hash"}}}}}},
                               {"api_keys", {{"keys", {{{"name", "shop"}, {"sha256", "s3cret-sum"}}}}}}}}}}},
                          {"acme", {{"eab_key_id", "me"}, {"eab_key", "s3cret-eab"}}}};
  redact(value);
  EXPECT_EQ(value.dump().find("s3cret"), std::string::npos) << value;
  EXPECT_EQ(value["policies"][0]["limit"]["shared"]["address"], "192.0.2.1:6379");
  EXPECT_EQ(value["acme"]["eab_key_id"], "me");
}

// A key whose name sounds like a secret must be one, or be listed here.
void collect_doubtful(const Section& section, std::set<std::string>& out) {
  for (const Field& field : section.fields) {
    if (field.section != nullptr) collect_doubtful(*field.section, out);
    if (field.section != nullptr || field.secret || field.type != FieldType::text) continue;
    for (const char* sound : {"secret", "password", "token", "_key", "sha256", "hash"}) {
      if (field.key.find(sound) != std::string_view::npos) out.insert(std::string(field.key));
    }
  }
}
TEST(Redact, LeavesOutNoKeyThatSoundsLikeASecret) {
  std::set<std::string> doubtful;
  collect_doubtful(root_section(), doubtful);
  EXPECT_THAT(doubtful, ::testing::UnorderedElementsAre("eab_key_id", "hash_on"));
}

TEST(Readable, NeverShowsAPrivateKey) {
  EXPECT_EQ(readable("file", "a.key", "-----BEGIN PRIVATE KEY-----\nMII\n").find("MII"), std::string::npos);
  EXPECT_EQ(readable("file", "k.json", R"({"keys":[{"kty":"oct","kid":"a","k":"c2VjcmV0"}]})").find("c2VjcmV0"),
            std::string::npos);
  const std::string open = R"({"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS"}]})";
  EXPECT_EQ(readable("file", "open.json", open), open);
}

TEST(Readable, ShowsAnElementWithItsNameFirst) {
  const std::string text =
      readable("pools", "origins", R"({"backends": [{"addresses": ["192.0.2.1"], "name": "a"}], "name": "origins"})");
  EXPECT_LT(text.find("name: origins"), text.find("backends")) << text;
  EXPECT_EQ(text.find("pools"), std::string::npos) << text;
  EXPECT_EQ(readable("order", "pools", R"(["a", "b"])"), "a\nb\n");
}

}  // namespace tidegate::diff_test
