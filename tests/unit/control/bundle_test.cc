// SPDX-License-Identifier: Apache-2.0
#include "control/api/bundle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>

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
  EXPECT_TRUE(parse_json(R"({"a": ")" + std::string(1'000, '[') + R"(\"[["})"))
      << "brackets in a string are not nested";
}

TEST(JsonBounds, RefusesAKeyThatStandsTwiceInOneObject) {
  EXPECT_THAT(parse_json(R"({"a": [{"b": 1}, {"b": 2, "c": {"b": 3}, "b": 4}]})").error().message,
              HasSubstr("the key 'b' stands twice"));
  EXPECT_TRUE(parse_json(R"({"a": [{"b": 1}, {"b": 2}], "b": {"a": 1}})"));
}

// The bodies of the API and the stream of a leader have lists of a hundred thousand elements.
TEST(LongJsonBounds, TheTimeToReadAListGrowsWithItsLength) {
  const auto cpu_ns_of = [](int elements) {
    std::string text = "[";
    for (int i = 0; i < elements; ++i) text += R"({"name":"r","path":["/x"]},)";
    text.back() = ']';
    timespec begun{}, ended{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begun);
    EXPECT_EQ(parse_json(text)->size(), static_cast<size_t>(elements));
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ended);
    return (ended.tv_sec - begun.tv_sec) * 1'000'000'000 + ended.tv_nsec - begun.tv_nsec;
  };
  const auto few = cpu_ns_of(5'000), many = cpu_ns_of(100'000);
  EXPECT_LT(many, few * 60) << "20 times the elements: 400 times the time if each one is compared with all";
}

}  // namespace tidegate::bundle_test
