// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cctype>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "conf/limits.h"
#include "core/regex.h"

namespace tidegate::cli::nginx_regex_test {
namespace {

using ::testing::HasSubstr;

// As nginx compiles and asks it.
bool nginx_takes(const std::string& pattern, bool ignore_case, const std::string& path) {
  int error = 0;
  PCRE2_SIZE place = 0;
  const std::unique_ptr<pcre2_code, void (*)(pcre2_code*)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), ignore_case ? PCRE2_CASELESS : 0,
                    &error, &place, nullptr),
      pcre2_code_free);
  if (!code) ADD_FAILURE() << pattern;
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), pcre2_match_data_free);
  return pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(path.data()), path.size(), 0, 0, data.get(), nullptr) > 0;
}

// The path as a client may write it. Unreserved characters stay. Others become escapes; some of them stay by chance.
std::string as_requested(const std::string& path, std::mt19937& random) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : path) {
    const bool unreserved =
        std::isalnum(static_cast<unsigned char>(c)) != 0 || std::string_view("-._~/").find(c) != std::string_view::npos;
    const bool may_be_plain = std::string_view("!$&'()*+,;=:@{}[]|^").find(c) != std::string_view::npos;
    if (unreserved || (may_be_plain && random() % 2 == 0)) {
      out += c;
    } else {
      out += {'%', kHex[static_cast<uint8_t>(c) >> 4], kHex[static_cast<uint8_t>(c) & 15]};
    }
  }
  return out;
}

// What locations of nginx look like: guides of distributions and applications have these.
const std::vector<std::pair<std::string, bool>> kCommon = {
    {R"(\.php$)", false},
    {R"(\.(jpg|jpeg|png|gif|ico|css|js)$)", true},
    {R"([^/]\.php(/|$))", false},
    {R"(^(.+\.php)(/.*)?$)", false},
    {R"(/\.ht)", false},
    {R"(/\.(?!well-known).*)", false},
    {R"(/\.(?!well-known\/))", true},
    {R"((^|/)\.)", false},
    {R"(^/(status|ping)$)", false},
    {R"(^/api/v[0-9]+/([^/?]+)/items$)", false},
    {R"(^/user/([^/]+)$)", false},
    {R"(^/[\w\.-]+/[\w\.-]+/(info/refs|git-upload-pack)$)", false},
    {R"(^\/(?:index|remote|ocs\/v[12]|oc[ms]-provider\/.+)\.php(?:$|\/))", false},
    {R"((?:#.*#|\.(?:bak|in[ci]|log|sw[op])|~)$)", true},
    {R"(^/~(.+?)(/.*)?$)", false},
    {R"(^/(?<year>\d{4})/(?<month>\d{2})/$)", false},
    {R"([<>\s])", false},
    {R"(^/@[^/]+$)", false},
    {R"(^/a.c$)", false},
    {R"(^/[^a-c]/[[:digit:]]\D$)", true},
    {R"(^/\x3c{b)", false},
    {R"(^/[]x-]\_$)", false},
    {R"((?i)^/DOWN/[^A]+$)", false},
    {"^/caf\xc3\xa9", false},
};

TEST(NginxRegex, TakesWhatNginxTakesHoweverItIsSpelt) {
  std::mt19937 random(7);  // the same texts in each run
  const std::vector<std::string> parts = {"/",
                                          "/",
                                          ".",
                                          "php",
                                          "a",
                                          "B",
                                          "c",
                                          "#",
                                          "~",
                                          "?",
                                          "<",
                                          " ",
                                          "%",
                                          "@",
                                          "{b",
                                          "]",
                                          "_",
                                          "-x",
                                          ".well-known",
                                          ".well",
                                          "user",
                                          "api/v1",
                                          "items",
                                          "status",
                                          "2024/11",
                                          ".ht",
                                          ".bak",
                                          "index.php",
                                          "git/x/info/refs",
                                          "caf\xc3\xa9",
                                          "3F",
                                          "DOWN",
                                          "down",
                                          "7"};
  size_t taken = 0;
  for (const auto& [pattern, ignore_case] : kCommon) {
    const Result<std::string> ours = nginx_path_regex(pattern, ignore_case);
    ASSERT_TRUE(ours) << pattern << ": " << ours.error().message;
    EXPECT_LE(ours->size(), 512U) << pattern;
    const Result<Regex> regex = Regex::compile(*ours, kRegexMemoryBytes);
    ASSERT_TRUE(regex) << *ours;
    size_t here = 0;
    for (int i = 0; i < 1'000; ++i) {
      std::string path = "/";
      for (size_t left = random() % 6; left > 0; --left) path += parts[random() % parts.size()];
      const bool theirs = nginx_takes(pattern, ignore_case, path);
      const std::string requested = as_requested(path, random);
      ASSERT_EQ(regex->takes_whole(requested), theirs) << pattern << " as " << *ours << "\n"
                                                       << path << " as " << requested;
      here += theirs ? 1 : 0;
    }
    taken += here > 0 ? 1 : 0;
  }
  EXPECT_GT(taken, kCommon.size() / 2) << "the texts meet the expressions";
}

TEST(NginxRegex, LeavesWhatHasOneSpellingAsItIs) {
  for (const auto& [pattern, ours] : std::vector<std::pair<std::string, std::string>>{
           {R"(\.(png|css)$)", R"((?s).*(?:\.(png|css)$).*)"},
           {R"(^/[a-z0-9_-]+/.*$)", R"((?s).*(?:^/[a-z0-9_-]+/.*$).*)"},
           {R"(^/(\d{3})/)", R"((?s).*(?:^/(\d{3})/).*)"},
           {R"(/\.(?!we))", R"((?s).*(?:/\.(?:$|[^w]|w(?:$|[^e]))).*)"},
           {"[<>]", R"((?s).*(?:(?:[\<\>]|%3[CE])).*)"},
       }) {
    EXPECT_EQ(nginx_path_regex(pattern, false).value(), ours);
  }
}

TEST(NginxRegex, SaysWhatItCannotSay) {
  for (const auto& [pattern, why] : std::vector<std::pair<std::string, std::string>>{
           {"a(?=b)", "does not look ahead or behind"},
           {"(?<!a)b", "does not look ahead or behind"},
           {"a(?!b)c", "except for plain words at the end"},
           {"(a(?!b))", "except for plain words at the end"},
           {"a(?!b|c)", "except for plain words at the end"},
           {"a(?!.)", "except for plain words at the end"},
           {"a(?!", "except for plain words at the end"},
           {"a(?!)", "except for plain words at the end"},
           {"a(?x) b", "flags stand at the beginning"},
           {R"(\badmin)", R"(\b)"},
           {R"((a)\1)", R"(\1)"},
           {"[a", "a class has no end"},
           {"[z-a]", "no such end"},
           {"[[:nothing:]]", "no such name"},
           {"a\\", "ends with a backslash"},
           {"a++", "RE2 does not take"},
           {"(a", "RE2 does not take"},
       }) {
    const Result<std::string> regex = nginx_path_regex(pattern, false);
    ASSERT_FALSE(regex) << pattern;
    EXPECT_THAT(regex.error().message, HasSubstr(why)) << pattern;
  }
}

}  // namespace
}  // namespace tidegate::cli::nginx_regex_test
