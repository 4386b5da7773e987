// SPDX-License-Identifier: Apache-2.0
#include "conf/route_pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidegate::route_pattern_test {

using ::testing::ElementsAre;
using ::testing::Pair;

PathPattern path(std::string_view text) {
  auto pattern = PathPattern::parse(text);
  EXPECT_TRUE(pattern) << text << ": " << (pattern ? "" : pattern.error().message);
  return pattern ? *pattern : PathPattern{};
}

HostPattern host(std::string_view text) {
  auto pattern = HostPattern::parse(text);
  EXPECT_TRUE(pattern) << text << ": " << (pattern ? "" : pattern.error().message);
  return pattern ? *pattern : HostPattern{};
}

TEST(PathPattern, MatchesSegmentBySegment) {
  EXPECT_TRUE(path("/*").matches("/"));
  EXPECT_TRUE(path("/*").matches("/a/b"));
  EXPECT_TRUE(path("/").matches("/"));
  EXPECT_FALSE(path("/").matches("/a"));
  EXPECT_TRUE(path("/a").matches("/a"));
  EXPECT_FALSE(path("/a").matches("/a/"));
  EXPECT_FALSE(path("/a").matches("/ab"));
  EXPECT_TRUE(path("/static/*").matches("/static/"));
  EXPECT_TRUE(path("/static/*").matches("/static/x/y"));
  EXPECT_TRUE(path("/static/*").matches("/static"));
  EXPECT_FALSE(path("/static/*").matches("/statics"));
  EXPECT_FALSE(path("/a/{id}/*").matches("/a"));
  EXPECT_FALSE(path("/a/{id}/*").matches("/a/"));
  EXPECT_TRUE(path("/a/{id}/*").matches("/a/x"));
  EXPECT_FALSE(path("/*").matches("*"));
  EXPECT_FALSE(path("/*").matches(""));
}

TEST(PathPattern, HandsOutParameters) {
  PathParameters parameters;
  const PathPattern pattern = path("/a/{id}/b/{name}/*");
  ASSERT_TRUE(pattern.matches("/a/7/b/x/rest", &parameters));
  EXPECT_THAT(parameters, ElementsAre(Pair("id", "7"), Pair("name", "x")));
  EXPECT_FALSE(pattern.matches("/a//b/x/rest", &parameters));
}

TEST(PathPattern, RefusesWhatIsNoPattern) {
  for (const char* text : {"", "a", "/a*", "/*/a", "/{}", "/{A}", "/{a}b", "/x{a}", "/{a}/{a}", "/{host}", "/a?b",
                           "/a#b", "/%2", "/%2f", "/..", "/a b", "/é"}) {
    EXPECT_FALSE(PathPattern::parse(text)) << text;
  }
  EXPECT_TRUE(PathPattern::parse("/a%2Fb/~c;d=1"));
}

TEST(PathPattern, IsMoreSpecificFromTheLeft) {
  const std::vector<std::string> rising = {"/*", "/{a}/*",   "/{a}",   "/{a}/x", "/a/*",
                                           "/a", "/a/{b}/*", "/a/{b}", "/a/b/*", "/a/b"};
  for (size_t i = 0; i + 1 < rising.size(); ++i) {
    EXPECT_TRUE(compare_specificity(path(rising[i]), path(rising[i + 1])) < 0) << rising[i] << " " << rising[i + 1];
  }
}

// The conflict check relies on this: two patterns tie on a path exactly when their shapes are equal.
TEST(PathPattern, TiesExactlyWhenShapesAreEqual) {
  const std::vector<std::string> patterns = {"/*",   "/a",     "/b",     "/{x}",     "/{y}",   "/a/*",
                                             "/a/b", "/a/{x}", "/{x}/b", "/{y}/{x}", "/{x}/*", "/a/"};
  const std::vector<std::string> paths = {"/",    "/a",   "/b",   "/c",     "/a/",  "/a/b",
                                          "/a/c", "/c/b", "/c/d", "/a/b/c", "/c/b/"};
  for (const std::string& left : patterns) {
    for (const std::string& right : patterns) {
      const PathPattern a = path(left), b = path(right);
      bool ties = false;
      for (const std::string& each : paths)
        ties = ties || (a.matches(each) && b.matches(each) && compare_specificity(a, b) == 0);
      EXPECT_EQ(ties, a.shape() == b.shape()) << left << " " << right;
    }
  }
}

TEST(HostPattern, MatchesExactlyOrBelow) {
  EXPECT_TRUE(host("WWW.Example.com.").matches("www.example.com"));
  EXPECT_TRUE(host("*.example.com").matches("a.b.example.com"));
  EXPECT_FALSE(host("*.example.com").matches("example.com"));
  EXPECT_FALSE(host("*.example.com").matches(".example.com"));
  EXPECT_FALSE(host("*.example.com").matches("badexample.com"));
  EXPECT_TRUE(host("[2001:DB8::1]").matches("[2001:db8::1]"));
  EXPECT_TRUE(host("192.0.2.1").matches("192.0.2.1"));
}

TEST(HostPattern, RefusesWhatIsNoHost) {
  for (const char* text :
       {"", ".", "*", "*.", "a.*.b", "a..b", "-a.b", "a.b:80", "http://a", "a/b", "[192.0.2.1]", "[x]", "é.test"}) {
    EXPECT_FALSE(HostPattern::parse(text)) << text;
  }
}

TEST(HostPattern, PrefersExactThenLongerWildcardThenAny) {
  const HostPattern exact = host("a.b.test"), longer = host("*.b.test"), shorter = host("*.test");
  EXPECT_TRUE(compare_specificity(&exact, &longer) > 0);
  EXPECT_TRUE(compare_specificity(&longer, &shorter) > 0);
  EXPECT_TRUE(compare_specificity(&shorter, nullptr) > 0);
  EXPECT_TRUE(compare_specificity(nullptr, nullptr) == 0);
}

TEST(PathPatternRest, IsWhatTheStarStandsFor) {
  EXPECT_EQ(rest_of_path("/a/b/c", "/a/*"), "/b/c");
  EXPECT_EQ(rest_of_path("/a/b/c", "/*"), "/a/b/c");
  EXPECT_EQ(rest_of_path("/", "/*"), "/");
  EXPECT_EQ(rest_of_path("/a/7/c/", "/a/{id}/*"), "/c/");
  EXPECT_EQ(rest_of_path("/a", "/a/*"), "");
  EXPECT_EQ(rest_of_path("/a/", "/a/*"), "/");
  EXPECT_EQ(rest_of_path("/a//b", "/a/*"), "/b") << "what follows cannot become a host";
  EXPECT_EQ(rest_of_path("/a///", "/a/*"), "/");
  EXPECT_EQ(rest_of_path("/a/b", "/a/b"), "");
  EXPECT_EQ(rest_of_path("", "/*"), "");
}

}  // namespace tidegate::route_pattern_test
