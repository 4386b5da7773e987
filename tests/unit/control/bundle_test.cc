// SPDX-License-Identifier: Apache-2.0
#include "control/api/bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/api/json_bounds.h"

namespace tidegate::bundle_test {

using ::testing::HasSubstr;

TEST(Bundle, ComesBackAsItWasEncoded) {
  Bundle bundle;
  bundle.file = "edge.yaml";
  bundle.text = "sites: []\n";
  bundle.files["a/b.zone"] = std::make_shared<const std::string>(std::string("\0\xff zone", 7));
  const Result<Bundle> decoded = decode_bundle(encode_bundle(bundle));
  ASSERT_TRUE(decoded) << decoded.error().message;
  EXPECT_EQ(decoded->file, bundle.file);
  EXPECT_EQ(decoded->text, bundle.text);
  EXPECT_EQ(*decoded->files.at("a/b.zone"), *bundle.files.at("a/b.zone"));
}

TEST(Bundle, SaysWhatIsWrongWithIt) {
  const auto refusal = [](std::string_view body) {
    const Result<Bundle> bundle = decode_bundle(body);
    return bundle ? std::string() : bundle.error().message;
  };
  EXPECT_THAT(refusal("{"), HasSubstr("not JSON"));
  EXPECT_THAT(refusal("[]"), HasSubstr("object"));
  EXPECT_THAT(refusal("{}"), HasSubstr("text is missing"));
  EXPECT_THAT(refusal(R"({"text": 1})"), HasSubstr("text is not a string"));
  EXPECT_THAT(refusal(R"({"text": "", "files": {"x": "%%%%"}})"), HasSubstr("content of x is not base64"));
  EXPECT_THAT(refusal(R"({"text": "", "flies": {}})"), HasSubstr("unknown member flies"));
}

TEST(Base64, TakesOnlyTheStandardAlphabetWithPadding) {
  EXPECT_EQ(base64_decode("aGk="), "hi");
  EXPECT_EQ(base64_decode("+/+/"), "\xfb\xff\xbf");
  EXPECT_EQ(base64_decode(""), "");
  for (const char* wrong : {"aGk", "aGk=aGk=", "-_-_", "a===", "a G="})
    EXPECT_EQ(base64_decode(wrong), std::nullopt) << wrong;
}

TEST(JsonBounds, RefusesWhatIsNestedTooDeep) {
  EXPECT_TRUE(parse_json(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')));
  EXPECT_FALSE(parse_json(std::string(100'000, '[')));
  EXPECT_FALSE(parse_json("{\"weight\": 1e999}")) << "a number that no double holds";
  EXPECT_EQ(json_depth(R"({"a": "[[[[\"[["})"), 1u);
}

}  // namespace tidegate::bundle_test
