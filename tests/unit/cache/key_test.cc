// SPDX-License-Identifier: Apache-2.0
#include "cache/policy/key.h"
#include "conf/model/route.h"

#include <gtest/gtest.h>

#include "tests/unit/cache/fields_of.h"

namespace tidegate::cache::key_test {

using testing::FieldList;

constexpr HashKeys kKeys{{1, 2}, {3, 4}};

std::string key_of(std::string_view scheme, std::string_view host, std::string_view path, std::string_view query = {},
                   const RouteCache& policy = {}) {
  RequestView request;
  request.scheme = scheme;
  request.host = host;
  request.path = path;
  request.query = query;
  std::string out = "left over from before";
  make_key(request, policy, out);
  return out;
}

TEST(Key, SchemeAndHostCountWithoutCaseAndDefaultPort) {
  EXPECT_EQ(key_of("https", "WWW.Example.test:443", "/a"), "https://www.example.test/a");
  EXPECT_EQ(key_of("http", "www.example.test:80", "/a"), "http://www.example.test/a");
  EXPECT_EQ(key_of("https", "www.example.test:80", "/a"), "https://www.example.test:80/a");
  EXPECT_EQ(key_of("https", "[::1]:443", ""), "https://[::1]/");
}

TEST(Key, PathAndQueryBytesCountAsReceived) {
  EXPECT_NE(key_of("https", "h", "/a%2Fb"), key_of("https", "h", "/a/b"));
  EXPECT_NE(key_of("https", "h", "/a%2fb"), key_of("https", "h", "/a%2Fb"));
  EXPECT_NE(key_of("https", "h", "/a;x.css"), key_of("https", "h", "/a"));
  EXPECT_NE(key_of("https", "h", "/A"), key_of("https", "h", "/a"));
  EXPECT_NE(key_of("https", "h", "/", "a=1&b=2"), key_of("https", "h", "/", "b=2&a=1"));
}

TEST(Key, TheRouteChoosesQueryParameters) {
  RouteCache listed;
  listed.key_query = {"page", "lang"};
  EXPECT_EQ(key_of("https", "h", "/", "utm=x&lang=en&page=2", listed), "https://h/?page=2&lang=en");
  EXPECT_EQ(key_of("https", "h", "/", "utm=x", listed), "https://h/");
  EXPECT_EQ(key_of("https", "h", "/", "page=1&page=2&pages=3", listed), "https://h/?page=1&page=2");
  RouteCache none;
  none.ignore_query = true;
  EXPECT_EQ(key_of("https", "h", "/", "a=1", none), "https://h/");
}

TEST(Key, APurgesUrlNamesTheSameKeyAsTheRequest) {
  EXPECT_EQ(make_key("HTTPS://WWW.example.test:443/a?b=1#frag", RouteCache{}),
            key_of("https", "www.example.test", "/a", "b=1"));
  EXPECT_EQ(make_key("http://h", RouteCache{}), "http://h/");
  EXPECT_EQ(make_key("http://h?q=1", RouteCache{}), "http://h/?q=1");
  for (const char* bad : {"", "/a", "h/a", "ftp://h/", "https:///a"}) EXPECT_FALSE(make_key(bad, RouteCache{})) << bad;
}

std::string values(std::string_view vary, const FieldList& fields, std::string_view branch = {}) {
  RequestView request;
  request.fields = fields;
  request.branch = branch;
  std::string out;
  vary_values(vary, request, out);
  return out;
}

TEST(Vary, NamesAreOneSortedSetHoweverTheyAreWritten) {
  EXPECT_EQ(canonical_vary(FieldList{{"Vary", "Origin, accept-encoding"}, {"vary", "ORIGIN"}}),
            "accept-encoding,origin");
  EXPECT_EQ(canonical_vary(FieldList{}), "");
}

TEST(Vary, TenSpellingsOfAcceptEncodingAreOneVariant) {
  const std::string expected = values("accept-encoding", {{"Accept-Encoding", "br, gzip"}});
  for (const char* spelling :
       {"gzip, br", "gzip,br", "br,gzip", "GZIP, BR", "gzip;q=1.0, br;q=0.5", "x-gzip, br", "br , gzip , identity",
        "gzip, br, gzip", "br;q=1, gzip;q=0.8, *;q=0", "gzip, br, deflate;q=0.0"}) {
    EXPECT_EQ(values("accept-encoding", {{"Accept-Encoding", spelling}}), expected) << spelling;
  }
  EXPECT_EQ(values("accept-encoding", {{"Accept-Encoding", "gzip"}, {"Accept-Encoding", "br"}}), expected);
  EXPECT_NE(values("accept-encoding", {{"Accept-Encoding", "gzip"}}), expected);
  EXPECT_NE(values("accept-encoding", {}), expected);
}

TEST(Vary, OtherFieldsCompareByValueWithWhiteSpaceAroundCommasAside) {  // RFC 9111 §4.1
  EXPECT_EQ(values("accept-language", {{"Accept-Language", "en,  de"}}),
            values("accept-language", {{"accept-language", "en,de"}}));
  EXPECT_EQ(values("accept-language", {{"Accept-Language", "en"}, {"Accept-Language", "de"}}),
            values("accept-language", {{"accept-language", "en,de"}}));
  EXPECT_NE(values("accept-language", {{"Accept-Language", "en"}}),
            values("accept-language", {{"Accept-Language", "EN"}}));
}

TEST(Vary, ValuesOfDifferentNamesDoNotRunTogether) {
  const auto hash = [](const FieldList& request) { return variant_hash(kKeys, "a,b", values("a,b", request)); };
  EXPECT_NE(hash({{"a", "x"}}), hash({{"b", "x"}}));
  EXPECT_EQ(variant_hash(kKeys, "", ""), 0U);
}

TEST(Vary, BranchesAreVariantsWhateverVarySays) {
  const auto hash = [](std::string_view vary, std::string_view branch) {
    return variant_hash(kKeys, vary, values(vary, {{"a", "x"}}, branch));
  };
  for (const char* vary : {"", "a", "a,b"}) {
    EXPECT_NE(hash(vary, "p/canary"), hash(vary, "")) << vary;
    EXPECT_NE(hash(vary, "p/canary"), hash(vary, "p/stable")) << vary;
    EXPECT_EQ(hash(vary, "p/canary"), hash(vary, "p/canary")) << vary;
  }
  // A field's value that looks like a branch is not a branch.
  EXPECT_NE(values("a", {{"a", "p/canary"}}), values("a", {}, "p/canary"));
  EXPECT_NE(values("a", {{"a", "p/canary"}}), values("", {}, "p/canary"));
}

TEST(Tags, SurrogateKeyIsSpacedAndCacheTagHasCommas) {
  const auto tags = response_tags(kKeys, FieldList{{"Surrogate-Key", "one two"}, {"Cache-Tag", "two, three"}});
  EXPECT_EQ(tags.size(), 3U);
  for (const char* tag : {"one", "two", "three"}) {
    EXPECT_TRUE(std::find(tags.begin(), tags.end(), tag_hash(kKeys, tag)) != tags.end()) << tag;
  }
}

TEST(Tags, AreComparedWithoutCaseAndCountOnceEach) {
  EXPECT_EQ(tag_hash(kKeys, "News-1"), tag_hash(kKeys, "nEWS-1"));
  EXPECT_EQ(response_tags(kKeys, FieldList{{"Cache-Tag", "News,news, NEWS"}, {"Surrogate-Key", "news"}}).size(), 1U);
}

TEST(OtherScheme, KeepsTheRestAndDropsItsOwnDefaultPort) {
  EXPECT_EQ(other_scheme_key("https://h/a?b=1"), "http://h/a?b=1");
  EXPECT_EQ(other_scheme_key("http://h/"), "https://h/");
  EXPECT_EQ(other_scheme_key("http://h:8080/"), "https://h:8080/");
  EXPECT_EQ(other_scheme_key("http://h:443/"), "https://h/");
  EXPECT_EQ(other_scheme_key("http://[::1]/"), "https://[::1]/");
}

}  // namespace tidegate::cache::key_test
