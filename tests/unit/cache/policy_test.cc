// SPDX-License-Identifier: Apache-2.0
#include "conf/model/policy.h"
#include "cache/policy/policy.h"
#include "conf/model/route.h"

#include <gtest/gtest.h>

#include "cache/policy/http_date.h"
#include "tests/unit/cache/fields_of.h"

namespace tidegate::cache::policy_test {

using testing::FieldList;
using testing::get;

constexpr uint64_t kNow = 784'111'777'000;  // Sun, 06 Nov 1994 08:49:37 GMT
constexpr const char* kDate = "Sun, 06 Nov 1994 08:49:37 GMT";
constexpr const char* kTenMinutesLater = "Sun, 06 Nov 1994 08:59:37 GMT";
constexpr const char* kTenDaysBefore = "Thu, 27 Oct 1994 08:49:37 GMT";

RouteCache enabled() {
  RouteCache policy;
  policy.enabled = true;
  return policy;
}

StoreDecision decide(const FieldList& response, const FieldList& request = {}, uint16_t status = 200,
                     const RouteCache& policy = enabled()) {
  return decide_store(get("/", request), {status, response, kNow, kNow, {}}, policy);
}

// --- heads with many names

TEST(Policy, AnAnswerThatVariesByMoreFieldsThanAnyDoesIsNotStored) {
  const auto of_names = [](size_t count) {
    std::string names = "x0";
    for (size_t i = 1; i < count; ++i) names += ", x" + std::to_string(i);
    return decide({{"Cache-Control", "max-age=60"}, {"Vary", names}}).refusal;
  };
  EXPECT_EQ(of_names(64), Refusal::none);
  EXPECT_EQ(of_names(65), Refusal::vary_star);
}

TEST(CacheControl, AListOfMoreFieldsThanAnyNamesCountsAsTheWholeDirective) {
  const auto is_whole = [](size_t count) {
    std::string names = "x0";
    for (size_t i = 1; i < count; ++i) names += ", x" + std::to_string(i);
    const FieldList fields{{"Cache-Control", "private=\"" + names + "\""}};
    const CacheControl control = parse_cache_control(fields);
    EXPECT_NE(control.is_private, control.withholds("x" + std::to_string(count - 1)));
    return control.is_private;
  };
  EXPECT_FALSE(is_whole(64));
  EXPECT_TRUE(is_whole(65));
}

// --- Cache-Control

struct DirectiveCase {
  const char* sentence;
  FieldList fields;
  std::optional<uint64_t> max_age;
};

TEST(CacheControl, MaxAgeIsReadAsRfc9111Section521And12Say) {
  const DirectiveCase cases[] = {
      {"plain", {{"Cache-Control", "max-age=60"}}, 60},
      {"name in any case", {{"CACHE-control", "Max-AGE=60"}}, 60},
      {"quoted", {{"Cache-Control", "max-age=\"60\""}}, 60},
      {"white space around commas", {{"Cache-Control", " public ,\tmax-age=60 , "}}, 60},
      {"the first of two (§4.2.1)", {{"Cache-Control", "max-age=60, max-age=5"}}, 60},
      {"the first of two lines", {{"Cache-Control", "max-age=60"}, {"Cache-Control", "max-age=5"}}, 60},
      {"on a later line", {{"Cache-Control", "public"}, {"Cache-Control", "max-age=5"}}, 5},
      {"overflow is 2^31 (§1.2.2)", {{"Cache-Control", "max-age=99999999999999999999"}}, uint64_t{1} << 31},
      {"negative is invalid, so stale", {{"Cache-Control", "max-age=-1"}}, 0},
      {"a fraction is invalid, so stale", {{"Cache-Control", "max-age=1.5"}}, 0},
      {"without value is invalid, so stale", {{"Cache-Control", "max-age"}}, 0},
      {"within a quoted string it is no directive", {{"Cache-Control", "ext=\"a, max-age=5\""}}, std::nullopt},
      {"a longer name is another directive", {{"Cache-Control", "x-max-age=5"}}, std::nullopt},
      {"absent", {}, std::nullopt},
  };
  for (const DirectiveCase& c : cases) EXPECT_EQ(parse_cache_control(c.fields).max_age, c.max_age) << c.sentence;
}

TEST(CacheControl, QualifiedNoCacheAndPrivateWithholdFieldsOnly) {
  const FieldList fields{{"Cache-Control", "no-cache=\"Set-Cookie, X-A\", private=\"x-b\""}};
  const auto control = parse_cache_control(fields);
  EXPECT_FALSE(control.no_cache);
  EXPECT_FALSE(control.is_private);
  EXPECT_TRUE(control.withholds("set-cookie"));
  EXPECT_TRUE(control.withholds("X-B"));
  EXPECT_FALSE(control.withholds("x-c"));
}

TEST(CacheControl, MoreQualifiedListsThanFitCountAsUnqualified) {
  const auto control = parse_cache_control(
      FieldList{{"Cache-Control", "no-cache=\"a\", no-cache=\"b\", no-cache=\"c\", no-cache=\"d\", no-cache=\"e\""}});
  EXPECT_TRUE(control.no_cache);
}

TEST(TargetedCacheControl, IsAStructuredDictionaryOrNothing) {
  const auto parse = [](const char* value) {
    return parse_targeted_cache_control(FieldList{{"CDN-Cache-Control", value}});
  };
  EXPECT_EQ(parse("max-age=60, must-revalidate")->max_age, 60U);
  EXPECT_EQ(parse("max-age=60, max-age=5")->max_age, 5U) << "the last member counts, RFC 8941 §3.2";
  EXPECT_EQ(parse("max-age=60;ext=1")->max_age, 60U) << "parameters are ignored";
  EXPECT_FALSE(parse("max-age=\"60\"")->max_age)
      << "a string is not an integer: the directive is ignored, RFC 9213 §2.2";
  EXPECT_FALSE(parse("no-store=?0")->no_store);
  EXPECT_TRUE(parse("no-store")->no_store);
  EXPECT_FALSE(parse("Max-Age=60")) << "upper case is no key: the field is malformed";
  EXPECT_FALSE(parse("max-age=60,")) << "trailing comma";
  EXPECT_FALSE(parse("max-age==60"));
  EXPECT_FALSE(parse(""));
}

// --- dates

TEST(HttpDate, AllThreeFormsOfRfc9110Section567AreRead) {
  EXPECT_EQ(parse_http_date(kDate, kNow), kNow);
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT", kNow), kNow);
  EXPECT_EQ(parse_http_date("Sun Nov  6 08:49:37 1994", kNow), kNow);
}

TEST(HttpDate, ATwoDigitYearMoreThanFiftyYearsAheadIsOfTheCenturyBefore) {
  const uint64_t in_2026 = 1'780'000'000'000;
  EXPECT_EQ(parse_http_date("Sunday, 06-Nov-94 08:49:37 GMT", in_2026), kNow);
}

TEST(HttpDate, CaseDoesNotMatterToACache) {  // RFC 9111 §4.2
  EXPECT_EQ(parse_http_date("SUN, 06 nov 1994 08:49:37 gmt", kNow), kNow);
  EXPECT_EQ(parse_http_date("sunday, 06-NOV-94 08:49:37 GMT", kNow), kNow);
  EXPECT_EQ(parse_http_date("sUN nOV  6 08:49:37 1994", kNow), kNow);
}

TEST(HttpDate, AnythingElseIsNoDate) {
  for (const char* text :
       {"", "0", "-1", "Sun, 06 Nov 1994 08:49:37", "Sun, 06 Nov 1994 08:49:37 UTC", "Sun, 6 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 28:49:37 GMT", "Sun, 06 Nov 1994 08:49:37 GMT ", "tomorrow"}) {
    EXPECT_FALSE(parse_http_date(text, kNow)) << text;
  }
}

// --- storing (§3)

struct StoreCase {
  const char* sentence;
  Refusal refusal;
  FieldList response;
  FieldList request = {};
  uint16_t status = 200;
};

TEST(DecideStore, FollowsRfc9111Section3ItemByItem) {
  const StoreCase cases[] = {
      {"explicit freshness is stored", Refusal::none, {{"Cache-Control", "max-age=60"}}},
      {"Expires is explicit freshness", Refusal::none, {{"Date", kDate}, {"Expires", kTenMinutesLater}}},
      {"no-store (§5.2.2.5)", Refusal::no_store, {{"Cache-Control", "max-age=60, no-store"}}},
      {"no-store in quotes is another directive", Refusal::none, {{"Cache-Control", "max-age=60, a=\"no-store\""}}},
      {"private (§5.2.2.7)", Refusal::is_private, {{"Cache-Control", "private, max-age=60"}}},
      {"private with fields stores the rest", Refusal::none, {{"Cache-Control", "private=\"x-user\", max-age=60"}}},
      {"request no-store (§5.2.1.5)",
       Refusal::request_no_store,
       {{"Cache-Control", "max-age=60"}},
       {{"Cache-Control", "no-store"}}},
      {"authorization (§3.5)",
       Refusal::authorization,
       {{"Cache-Control", "max-age=60"}},
       {{"Authorization", "Basic eA=="}}},
      {"authorization with public", Refusal::none, {{"Cache-Control", "max-age=60, public"}}, {{"Authorization", "x"}}},
      {"authorization with s-maxage", Refusal::none, {{"Cache-Control", "s-maxage=60"}}, {{"Authorization", "x"}}},
      {"authorization with must-revalidate",
       Refusal::none,
       {{"Cache-Control", "max-age=9, must-revalidate"}},
       {{"Authorization", "x"}}},
      {"Vary: * (§4.1)", Refusal::vary_star, {{"Cache-Control", "max-age=60"}, {"Vary", "Origin, *"}}},
      {"206 is not stored", Refusal::status, {{"Cache-Control", "max-age=60"}}, {}, 206},
      {"304 of somebody else's condition", Refusal::status, {{"Cache-Control", "max-age=60"}}, {}, 304},
      {"an unknown final status with explicit freshness", Refusal::none, {{"Cache-Control", "max-age=60"}}, {}, 299},
      {"must-understand wants a known status (§5.2.2.3)",
       Refusal::status,
       {{"Cache-Control", "max-age=60, must-understand"}},
       {},
       299},
      {"must-understand overrides no-store",
       Refusal::none,
       {{"Cache-Control", "max-age=60, must-understand, no-store"}}},
      {"302 has no heuristic freshness", Refusal::not_cacheable, {{"Location", "/b"}}, {}, 302},
      {"500 without freshness", Refusal::not_cacheable, {{"ETag", "\"a\""}}, {}, 500},
      {"404 without freshness and without a default", Refusal::not_cacheable, {}, {}, 404},
      {"404 with freshness", Refusal::none, {{"Cache-Control", "max-age=60"}}, {}, 404},
      {"a cookie", Refusal::set_cookie, {{"Cache-Control", "max-age=60"}, {"Set-Cookie", "a=b"}}},
      {"a cookie on a public response",
       Refusal::none,
       {{"Cache-Control", "max-age=60, public"}, {"Set-Cookie", "a=b"}}},
      {"a cookie that is withheld",
       Refusal::none,
       {{"Cache-Control", "max-age=60, no-cache=\"set-cookie\""}, {"Set-Cookie", "a=b"}}},
      {"stale from the start, nothing to validate by", Refusal::no_lifetime, {{"Cache-Control", "max-age=0"}}},
      {"stale from the start, with an etag", Refusal::none, {{"Cache-Control", "max-age=0"}, {"ETag", "\"a\""}}},
      {"no-cache without a validator", Refusal::no_lifetime, {{"Cache-Control", "no-cache, max-age=60"}}},
      {"Pragma in a response means nothing (§5.4)",
       Refusal::none,
       {{"Cache-Control", "max-age=60"}, {"Pragma", "no-cache"}}},
      {"CDN-Cache-Control goes before Cache-Control (RFC 9213 §2.1)",
       Refusal::none,
       {{"Cache-Control", "no-store"}, {"CDN-Cache-Control", "max-age=60"}}},
      {"CDN-Cache-Control: no-store",
       Refusal::no_store,
       {{"Cache-Control", "max-age=60"}, {"CDN-Cache-Control", "no-store"}}},
      {"a malformed CDN-Cache-Control counts for nothing",
       Refusal::none,
       {{"Cache-Control", "max-age=60"}, {"CDN-Cache-Control", "NO-STORE"}}},
  };
  for (const StoreCase& c : cases) {
    EXPECT_STREQ(token(decide(c.response, c.request, c.status).refusal), token(c.refusal)) << c.sentence;
  }
}

TEST(DecideStore, OnlyGetIsStored) {
  const FieldList fields{{"Cache-Control", "max-age=60"}};
  for (const char* method : {"HEAD", "POST", "PUT", "OPTIONS", "get"}) {
    EXPECT_EQ(decide_store(get("/", {}, method), {200, fields, kNow, kNow, {}}, enabled()).refusal,
              Refusal::request_method)
        << method;
  }
}

// --- freshness (§4.2)

struct LifetimeCase {
  const char* sentence;
  uint64_t lifetime_ms;
  FieldList response;
};

TEST(Freshness, LifetimeFollowsRfc9111Section421) {
  const LifetimeCase cases[] = {
      {"s-maxage goes before max-age and Expires",
       10'000,
       {{"Cache-Control", "max-age=20, s-maxage=10"}, {"Expires", kTenMinutesLater}}},
      {"max-age goes before Expires", 20'000, {{"Cache-Control", "max-age=20"}, {"Expires", kTenMinutesLater}}},
      {"Expires less Date", 600'000, {{"Date", kDate}, {"Expires", kTenMinutesLater}}},
      {"Expires less the time received when Date is missing", 600'000, {{"Expires", kTenMinutesLater}}},
      {"an invalid Expires is in the past (§5.3)", 0, {{"Expires", "0"}, {"ETag", "\"a\""}}},
      {"a tenth of the time since Last-Modified (§4.2.2)",
       86'400'000,
       {{"Date", kDate}, {"Last-Modified", kTenDaysBefore}}},
      {"targeted max-age goes before s-maxage",
       5'000,
       {{"Cache-Control", "s-maxage=9"}, {"CDN-Cache-Control", "max-age=5"}}},
  };
  for (const LifetimeCase& c : cases) EXPECT_EQ(decide(c.response).freshness.lifetime_ms, c.lifetime_ms) << c.sentence;
}

TEST(Freshness, TheRoutesDefaultIsForResponsesThatSayNothingAndCappedForErrors) {
  RouteCache policy = enabled();
  policy.default_ttl_ms = 60'000;
  EXPECT_EQ(decide({}, {}, 200, policy).freshness.lifetime_ms, 60'000U);
  EXPECT_EQ(decide({{"Cache-Control", "max-age=5"}}, {}, 200, policy).freshness.lifetime_ms, 5'000U);
  EXPECT_EQ(decide({}, {}, 404, policy).freshness.lifetime_ms, kNegativeTtlCapMs);
}

TEST(Freshness, TheRoutesMaximumCapsEveryLifetime) {
  RouteCache policy = enabled();
  policy.max_ttl_ms = 1'000;
  EXPECT_EQ(decide({{"Cache-Control", "max-age=60"}}, {}, 200, policy).freshness.lifetime_ms, 1'000U);
}

struct AgeCase {
  const char* sentence;
  uint64_t age_s;
  FieldList response;
  uint64_t delay_ms = 0;
};

TEST(Freshness, InitialAgeFollowsRfc9111Section423) {
  const AgeCase cases[] = {
      {"no Age, a current Date", 0, {{"Date", kDate}}},
      {"Age as received", 30, {{"Date", kDate}, {"Age", "30"}}},
      {"the response delay is added to Age", 35, {{"Date", kDate}, {"Age", "30"}}, 5'000},
      {"an old Date is an apparent age", 864'000, {{"Date", kTenDaysBefore}}},
      {"a Date in the future is no negative age", 0, {{"Date", kTenMinutesLater}}},
      {"the larger of both", 864'000, {{"Date", kTenDaysBefore}, {"Age", "30"}}},
      {"the first of several Ages (§5.1)", 7, {{"Date", kDate}, {"Age", "7, 30"}}},
      {"an invalid Age is ignored", 0, {{"Date", kDate}, {"Age", "-5"}}},
      {"a fraction is invalid", 0, {{"Date", kDate}, {"Age", "1.5"}}},
  };
  for (const AgeCase& c : cases) {
    FieldList fields = c.response;
    fields.add("Cache-Control", "max-age=1000000000");
    const auto decision = decide_store(get("/"), {200, fields, kNow - c.delay_ms, kNow, {}}, enabled());
    EXPECT_EQ(age_ms(decision.freshness, kNow) / 1000, c.age_s) << c.sentence;
  }
}

TEST(Freshness, AnOverflowingAgeMakesItStaleAndNothingWraps) {
  const auto decision =
      decide({{"Date", kDate}, {"Age", "99999999999999999999"}, {"Cache-Control", "max-age=60"}, {"ETag", "\"a\""}});
  EXPECT_EQ(decision.refusal, Refusal::none);
  EXPECT_LT(ttl_ms(decision.freshness, kNow), 0);
}

// --- use (§4)

Freshness fresh_for(uint64_t lifetime_s) {
  Freshness freshness;
  freshness.born_ms = kNow;
  freshness.lifetime_ms = lifetime_s * 1000;
  return freshness;
}

struct UseCase {
  const char* sentence;
  Use use;
  Forward why;
  uint64_t after_s;
  FieldList request;
};

TEST(DecideUse, RequestDirectivesFollowRfc9111Section521) {
  const UseCase cases[] = {
      {"fresh", Use::fresh, Forward::none, 59, {}},
      {"stale at its lifetime, not after it (§4.2)", Use::validate, Forward::stale, 60, {}},
      {"no-cache", Use::validate, Forward::request, 1, {{"Cache-Control", "no-cache"}}},
      {"Pragma: no-cache alone", Use::validate, Forward::request, 1, {{"Pragma", "no-cache"}}},
      {"Pragma beside Cache-Control means nothing",
       Use::fresh,
       Forward::none,
       1,
       {{"Pragma", "no-cache"}, {"Cache-Control", "x"}}},
      {"max-age=0", Use::validate, Forward::request, 0, {{"Cache-Control", "max-age=0"}}},
      {"younger than max-age", Use::fresh, Forward::none, 10, {{"Cache-Control", "max-age=10"}}},
      {"older than max-age", Use::validate, Forward::request, 11, {{"Cache-Control", "max-age=10"}}},
      {"fresh for at least min-fresh", Use::fresh, Forward::none, 50, {{"Cache-Control", "min-fresh=10"}}},
      {"not fresh for min-fresh", Use::validate, Forward::request, 51, {{"Cache-Control", "min-fresh=10"}}},
      {"any max-stale", Use::stale_by_request, Forward::none, 6000, {{"Cache-Control", "max-stale"}}},
      {"within max-stale", Use::stale_by_request, Forward::none, 70, {{"Cache-Control", "max-stale=10"}}},
      {"beyond max-stale", Use::validate, Forward::stale, 71, {{"Cache-Control", "max-stale=10"}}},
  };
  for (const UseCase& c : cases) {
    const auto decision = decide_use(fresh_for(60), request_control(c.request), false, kNow + c.after_s * 1000);
    EXPECT_EQ(decision.use, c.use) << c.sentence;
    if (decision.use == Use::validate) {
      EXPECT_STREQ(token(decision.why), token(c.why)) << c.sentence;
    }
  }
}

TEST(DecideUse, StaleWhileRevalidateServesWithinItsWindowOnly) {
  Freshness freshness = fresh_for(60);
  freshness.stale_while_revalidate_ms = 30'000;
  EXPECT_EQ(decide_use(freshness, {}, false, kNow + 90'000).use, Use::stale_while_revalidate);
  EXPECT_EQ(decide_use(freshness, {}, false, kNow + 90'001).use, Use::validate);
}

TEST(DecideUse, ASoftPurgeMakesFreshStale) { EXPECT_EQ(decide_use(fresh_for(60), {}, true, kNow).use, Use::validate); }

TEST(DecideUse, MustRevalidateNoCacheAndSMaxageForbidStaleAnswers) {
  RouteCache policy = enabled();
  policy.stale_while_revalidate_ms = policy.stale_if_error_ms = 1'000'000;
  const CacheControl any_stale = request_control(FieldList{{"Cache-Control", "max-stale"}});
  for (const char* value : {"max-age=1, must-revalidate", "max-age=1, proxy-revalidate", "s-maxage=1",
                            "max-age=1, must-revalidate, stale-while-revalidate=60, stale-if-error=60"}) {
    const Freshness freshness = decide({{"Cache-Control", value}, {"ETag", "\"a\""}}, {}, 200, policy).freshness;
    EXPECT_EQ(decide_use(freshness, any_stale, false, kNow + 5'000).use, Use::validate) << value;
    EXPECT_FALSE(may_serve_on_error(freshness, any_stale, kNow + 5'000)) << value;
  }
  const Freshness no_cache =
      decide({{"Cache-Control", "max-age=60, no-cache"}, {"ETag", "\"a\""}}, {}, 200, policy).freshness;
  EXPECT_EQ(decide_use(no_cache, any_stale, false, kNow).use, Use::validate);
}

TEST(DecideUse, AResponseMayGrantStaleBesideSMaxage) {
  const Freshness freshness =
      decide({{"Cache-Control", "s-maxage=1, stale-while-revalidate=60, stale-if-error=90"}}).freshness;
  EXPECT_EQ(decide_use(freshness, {}, false, kNow + 5'000).use, Use::stale_while_revalidate);
  EXPECT_TRUE(may_serve_on_error(freshness, {}, kNow + 80'000));
  EXPECT_FALSE(may_serve_on_error(freshness, {}, kNow + 92'000));
}

TEST(Invalidation, OnlyNonErrorAnswersToUnsafeMethodsInvalidate) {  // RFC 9111 §4.4
  EXPECT_TRUE(invalidates("POST", 200));
  EXPECT_TRUE(invalidates("DELETE", 303));
  EXPECT_TRUE(invalidates("FOO", 204));
  EXPECT_FALSE(invalidates("POST", 404));
  EXPECT_FALSE(invalidates("PUT", 500));
  EXPECT_FALSE(invalidates("GET", 200));
  EXPECT_FALSE(invalidates("OPTIONS", 200));
}

TEST(Clock, ThatIsSetBackMakesWhatWasStoredBeforeStale) {
  constexpr uint64_t kMinute = 60'000, kHour = 3'600'000;
  Freshness freshness;
  freshness.born_ms = kNow;
  freshness.lifetime_ms = kMinute;
  EXPECT_EQ(decide_use(freshness, {}, false, kNow - 5'000).use, Use::fresh) << "a usual correction";
  EXPECT_EQ(ttl_ms(freshness, kNow - 5'000), static_cast<int64_t>(kMinute));
  const UseDecision use = decide_use(freshness, {}, false, kNow - kHour);
  EXPECT_EQ(use.use, Use::validate) << "it would be fresh for an hour and a minute";
  EXPECT_EQ(use.why, Forward::stale);
  EXPECT_EQ(ttl_ms(freshness, kNow - kHour), 0);
  freshness.stale_while_revalidate_ms = kMinute;
  EXPECT_EQ(decide_use(freshness, {}, false, kNow - kHour).use, Use::stale_while_revalidate);
  freshness.born_ms = kNow - kHour;  // it was validated
  EXPECT_EQ(decide_use(freshness, {}, false, kNow - kHour).use, Use::fresh);
}

}  // namespace tidegate::cache::policy_test
