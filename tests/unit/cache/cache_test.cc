// SPDX-License-Identifier: Apache-2.0
// The cache in memory: outcomes, freshness as clients see it, validation, purges.
#include "cache/cache.h"
#include "cache/limits.h"

#include <gtest/gtest.h>

#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::cache_test {

using namespace testing;

class CacheInMemory : public CacheFixture {
 protected:
  void SetUp() override { open(); }
};

TEST_F(CacheInMemory, AMissLeadsAndTheNextRequestHits) {
  Lookup leader = find(get("/a"));
  ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
  EXPECT_EQ(leader.status.forward, Forward::uri_miss);
  FillDecision decision = fill(leader, 200, fresh_minute(), "hello");
  ASSERT_TRUE(decision.answer);
  EXPECT_EQ(read_all(*decision.answer), "hello");

  Lookup hit = find(get("/a"));
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_EQ(hit.answer.status, 200);
  EXPECT_EQ(hit.answer.content_length, 5U);
  EXPECT_EQ(hit.answer.head->etag, "\"v1\"");
  EXPECT_EQ(read_all(hit.answer), "hello");
  EXPECT_EQ(metric("tidegate_cache_hits_total{tier=\"memory\"}"), 1);
}

TEST_F(CacheInMemory, AgeGrowsAndTheTtlShrinks) {
  store("/a", fresh_minute(), "x");
  const Lookup hit = find(get("/a"), now_ms() + 10'000);
  EXPECT_EQ(hit.answer.age_s, 10U);
  EXPECT_NEAR(static_cast<double>(*hit.status.ttl_s), 50, 1);
}

TEST_F(CacheInMemory, HeadIsAnsweredFromAStoredGet) {
  store("/a", fresh_minute(), "hello");
  Lookup hit = find(get("/a", {}, "HEAD"));
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_EQ(hit.answer.content_length, 5U);
  EXPECT_EQ(read_all(hit.answer), "");
}

TEST_F(CacheInMemory, ARangeOfAStoredObjectIs206) {
  store("/a", fresh_minute(), "0123456789");
  Lookup hit = find(get("/a", FieldList{{"Range", "bytes=2-4"}}));
  EXPECT_EQ(hit.answer.status, 206);
  EXPECT_EQ(read_all(hit.answer), "234");
}

TEST_F(CacheInMemory, AClientsConditionIsAnsweredFromTheCache) {
  store("/a", fresh_minute(), "hello");
  Lookup hit = find(get("/a", FieldList{{"If-None-Match", "\"v1\""}}));
  EXPECT_EQ(hit.answer.status, 304);
  EXPECT_EQ(read_all(hit.answer), "");
}

TEST_F(CacheInMemory, TheLeadersOwnRangeIsServedFromTheWhole) {
  Lookup leader = find(get("/a", FieldList{{"Range", "bytes=2-4"}}));
  FillDecision decision = fill(leader, 200, fresh_minute(), "0123456789");
  EXPECT_EQ(decision.answer->status, 206);
  EXPECT_EQ(read_all(*decision.answer), "234");
  Lookup hit = find(get("/a"));
  EXPECT_EQ(read_all(hit.answer), "0123456789");
}

TEST_F(CacheInMemory, VariantsAreStoredBesideEachOther) {
  const FieldList vary{{"Cache-Control", "max-age=60"}, {"Vary", "Accept-Encoding"}};
  store("/a", vary, "zipped", {{"Accept-Encoding", "gzip"}});
  Lookup plain = find(get("/a"));
  ASSERT_EQ(plain.outcome, LookupOutcome::fetch);
  EXPECT_EQ(plain.status.forward, Forward::vary_miss);
  fill(plain, 200, vary, "plain");
  Lookup zipped = find(get("/a", FieldList{{"Accept-Encoding", "GZIP;q=1"}}));
  EXPECT_EQ(read_all(zipped.answer), "zipped");
  Lookup again = find(get("/a"));
  EXPECT_EQ(read_all(again.answer), "plain");
}

TEST_F(CacheInMemory, AFloodOfVariantsLeavesThoseInUse) {
  const FieldList vary{{"Cache-Control", "max-age=60"}, {"Vary", "X-Kind"}};
  store("/a", vary, "in use", {{"X-Kind", "used"}});
  for (int i = 0; i < 200; ++i) {
    ASSERT_EQ(find(get("/a", FieldList{{"X-Kind", "used"}})).outcome, LookupOutcome::hit) << i;
    store("/a", vary, "one of many", {{"X-Kind", std::to_string(i)}});
  }
  EXPECT_EQ(find(get("/a", FieldList{{"X-Kind", "used"}})).outcome, LookupOutcome::hit);
}

TEST_F(CacheInMemory, ManySmallVariantsOfAKeyAllStay) {
  const FieldList vary{{"Cache-Control", "max-age=60"}, {"Vary", "X-Kind"}};
  const auto fields = [](int i) { return FieldList{{"X-Kind", std::to_string(i)}}; };
  for (int i = 0; i < 300; ++i) store("/small", vary, std::to_string(i), fields(i));
  for (int i = 0; i < 300; ++i) {
    Lookup hit = find(get("/small", fields(i)));
    ASSERT_EQ(hit.outcome, LookupOutcome::hit) << i;
    ASSERT_EQ(read_all(hit.answer), std::to_string(i));
  }
  EXPECT_EQ(metric("tidegate_cache_variants_evicted_total"), 0);
}

TEST_F(CacheInMemory, BypassSaysWhy) {
  EXPECT_EQ(find(get("/a", {}, "POST")).status.forward, Forward::method);
  policy.enabled = false;
  const Lookup off = find(get("/a"));
  EXPECT_EQ(off.outcome, LookupOutcome::bypass);
  EXPECT_EQ(off.status.forward, Forward::bypass);
}

TEST_F(CacheInMemory, WhatIfMatchNamesIsServedAndOtherwiseTheOriginIsAsked) {  // RFC 9110 §13.1.1
  store("/a", fresh_minute(), "0123456789");
  const FieldList same{{"If-Match", "\"v0\", \"v1\""}, {"Range", "bytes=2-4"}}, other{{"If-Match", "\"v0\""}};
  Lookup part = find(get("/a", same));
  ASSERT_EQ(part.outcome, LookupOutcome::hit);
  EXPECT_EQ(part.answer.status, 206);
  EXPECT_EQ(read_all(part.answer), "234");
  EXPECT_EQ(find(get("/a", FieldList{{"If-Match", "*"}})).outcome, LookupOutcome::hit);
  EXPECT_EQ(cache->explain(get("/a", other), policy, now_ms()).status.forward, Forward::request);
  Lookup leader = find(get("/a", other));
  ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
  EXPECT_EQ(leader.status.forward, Forward::request);
  FillDecision decision = leader.fill.on_head(response(304, fresh_minute()), now_ms());
  ASSERT_TRUE(decision.answer);
  EXPECT_EQ(decision.answer->status, 412);
  EXPECT_EQ(decision.answer->content_length, 0U);
  EXPECT_EQ(read_all(*decision.answer), "");
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit) << "the stored response stays";
  policy.ignore_reload = true;
  Lookup refused = find(get("/a", other));
  EXPECT_EQ(refused.outcome, LookupOutcome::hit) << "no client may make this route ask the origin";
  EXPECT_EQ(refused.answer.status, 412);
}

TEST_F(CacheInMemory, AStaleResponseThatIfMatchDoesNotNameStandsInForNoError) {
  store("/a", {{"Cache-Control", "max-age=1, stale-if-error=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup leader = find(get("/a", FieldList{{"If-Match", "\"v2\""}}), later);
  EXPECT_FALSE(leader.fill.stale_answer(later));
  EXPECT_EQ(leader.fill.on_head(response(503, {}, 0), later).kind, FillDecision::Kind::pass);
  Lookup named = find(get("/a", FieldList{{"If-Match", "\"v1\""}}), later);
  EXPECT_EQ(named.fill.on_head(response(503, {}, 0), later).kind, FillDecision::Kind::serve_stale);
}

TEST_F(CacheInMemory, OnlyIfCachedIsRefusedWithoutAStoredResponse) {
  const FieldList only{{"Cache-Control", "only-if-cached"}};
  EXPECT_EQ(find(get("/a", only)).outcome, LookupOutcome::refuse);
  store("/a", fresh_minute(), "x");
  EXPECT_EQ(find(get("/a", only)).outcome, LookupOutcome::hit);
}

TEST_F(CacheInMemory, AStaleResponseIsValidatedAndA304FreshensIt) {
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}, {"X-A", "old"}}, "hello");
  Lookup leader = find(get("/a"), now_ms() + 5'000);
  ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
  EXPECT_EQ(leader.status.forward, Forward::stale);
  ASSERT_EQ(leader.fill.conditional_fields().size(), 1U);
  EXPECT_EQ(leader.fill.conditional_fields()[0].value, "\"v1\"");
  FillDecision decision =
      leader.fill.on_head(response(304, FieldList{{"Cache-Control", "max-age=60"}, {"X-A", "new"}}), now_ms());
  ASSERT_EQ(decision.kind, FillDecision::Kind::freshened);
  EXPECT_EQ(read_all(*decision.answer), "hello");
  Lookup hit = find(get("/a"), now_ms() + 5'000);
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_NE(hit.answer.head->field_text.find("x-a: new"), std::string::npos);
  EXPECT_EQ(read_all(hit.answer), "hello");
}

TEST_F(CacheInMemory, A200InsteadOfA304ReplacesTheStoredResponse) {
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}}, "old");
  Lookup leader = find(get("/a"), now_ms() + 5'000);
  fill(leader, 200, fresh_minute(), "new");
  Lookup hit = find(get("/a"));
  EXPECT_EQ(read_all(hit.answer), "new");
}

TEST_F(CacheInMemory, AnUncacheableAnswerToAValidationRemovesWhatWasStored) {
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}}, "old");
  Lookup leader = find(get("/a"), now_ms() + 5'000);
  EXPECT_EQ(fill(leader, 200, FieldList{{"Cache-Control", "no-store"}}, "").kind, FillDecision::Kind::pass);
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
}

TEST_F(CacheInMemory, WhileRevalidatingOneFetchesAndTheOthersAreServedStale) {
  store("/a", {{"Cache-Control", "max-age=1, stale-while-revalidate=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup first = find(get("/a"), later);
  ASSERT_EQ(first.outcome, LookupOutcome::stale);
  EXPECT_TRUE(first.fill);
  EXPECT_EQ(read_all(first.answer), "old");
  for (int i = 0; i < 3; ++i) {
    Lookup other = find(get("/a"), later);
    EXPECT_EQ(other.outcome, LookupOutcome::stale);
    EXPECT_FALSE(other.fill);
  }
  const FillDecision decision = fill(first, 200, fresh_minute(), "new");
  EXPECT_FALSE(decision.answer) << "a background fetch has no client";
  Lookup hit = find(get("/a"));
  EXPECT_EQ(read_all(hit.answer), "new");
}

TEST_F(CacheInMemory, AHeadWhileRevalidatingFetchesNothingAndThrowsNothingAway) {
  store("/a", {{"Cache-Control", "max-age=1, stale-while-revalidate=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup head = find(get("/a", {}, "HEAD"), later);
  EXPECT_EQ(head.outcome, LookupOutcome::stale);
  EXPECT_FALSE(head.fill) << "what a HEAD brings cannot take the stored response's place";
  Lookup stale = find(get("/a"), later);
  EXPECT_EQ(stale.outcome, LookupOutcome::stale);
  EXPECT_TRUE(stale.fill);
  EXPECT_EQ(read_all(stale.answer), "old");
}

TEST_F(CacheInMemory, StaleIfErrorServesInPlaceOfA500AndOfNoBackend) {
  store("/a", {{"Cache-Control", "max-age=1, stale-if-error=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup leader = find(get("/a"), later);
  FillDecision decision = leader.fill.on_head(response(503, {}), later);
  ASSERT_EQ(decision.kind, FillDecision::Kind::serve_stale);
  EXPECT_EQ(read_all(*decision.answer), "old");
  Lookup again = find(get("/a"), later);
  auto stale = again.fill.stale_answer(later);
  ASSERT_TRUE(stale);
  EXPECT_EQ(read_all(*stale), "old");
  again.fill.fail(FillFailure::backend_failed, "connect-refused");
  EXPECT_EQ(find(get("/a"), later).outcome, LookupOutcome::fetch);
}

TEST_F(CacheInMemory, RequestNoCacheGoesToTheOriginAndItsAnswerIsStored) {
  store("/a", fresh_minute(), "old");
  Lookup leader = find(get("/a", FieldList{{"Cache-Control", "no-cache"}}));
  ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
  EXPECT_EQ(leader.status.forward, Forward::request);
  fill(leader, 200, fresh_minute(), "new");
  Lookup hit = find(get("/a"));
  EXPECT_EQ(read_all(hit.answer), "new");
}

TEST_F(CacheInMemory, ARouteMayIgnoreAClientsReload) {
  store("/a", fresh_minute(), "old");
  const FieldList reloads[] = {{{"Cache-Control", "no-cache"}},
                               {{"Cache-Control", "max-age=0"}},
                               {{"Cache-Control", "min-fresh=600"}},
                               {{"Pragma", "no-cache"}}};
  for (const FieldList& reload : reloads)
    EXPECT_EQ(cache->explain(get("/a", reload), policy, now_ms()).outcome, LookupOutcome::fetch);
  policy.ignore_reload = true;
  for (const FieldList& reload : reloads) {
    EXPECT_EQ(cache->explain(get("/a", reload), policy, now_ms()).outcome, LookupOutcome::hit);
    Lookup hit = find(get("/a", reload));
    ASSERT_EQ(hit.outcome, LookupOutcome::hit);
    EXPECT_EQ(read_all(hit.answer), "old");
  }
  EXPECT_EQ(find(get("/a", reloads[0]), now_ms() + 120'000).outcome, LookupOutcome::fetch) << "stale is stale";
}

TEST_F(CacheInMemory, AnUnsafeRequestInvalidatesItsTargetAndWhatItNames) {  // RFC 9111 §4.4
  for (const char* path : {"/a", "/b", "/c", "/d"}) store(path, fresh_minute(), "x");
  const FieldList fields{{"Location", "/b"}, {"Content-Location", "https://www.example.test/c"}};
  cache->invalidate(get("/a", {}, "POST"), policy, response(201, fields));
  for (const char* path : {"/a", "/b", "/c"}) EXPECT_EQ(find(get(path)).outcome, LookupOutcome::fetch) << path;
  EXPECT_EQ(find(get("/d")).outcome, LookupOutcome::hit);
  cache->invalidate(get("/d", {}, "POST"), policy, response(500, {}));
  EXPECT_EQ(find(get("/d")).outcome, LookupOutcome::hit) << "an error answer invalidates nothing";
}

Purge purge_of(PurgeKind kind, std::string value, bool soft = false, uint64_t sequence = 0) {
  Purge purge;
  purge.kind = kind;
  purge.value = std::move(value);
  purge.soft = soft;
  purge.sequence = sequence;
  return purge;
}

TEST_F(CacheInMemory, APurgeByUrlTakesEveryVariantAndNothingElse) {
  const FieldList vary{{"Cache-Control", "max-age=60"}, {"Vary", "Accept-Encoding"}};
  store("/a", vary, "zipped", {{"Accept-Encoding", "gzip"}});
  store("/a", vary, "plain");
  store("/b", fresh_minute(), "b");
  cache->purge(purge_of(PurgeKind::url, "https://www.example.test/a"));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/a", FieldList{{"Accept-Encoding", "gzip"}})).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/b")).outcome, LookupOutcome::hit);
}

TEST_F(CacheInMemory, EachOfManyTagsIsFoundAndWhatHasTooManyIsNotStored) {
  const auto tagged = [](size_t count) {
    std::string tags;
    for (size_t i = 0; i < count; ++i) tags += "tag-" + std::to_string(i) + ",";
    return FieldList{{"Cache-Control", "max-age=60"}, {"ETag", "\"v1\""}, {"Cache-Tag", tags}};
  };
  store("/a", tagged(kMaxTags), "a");
  cache->purge(purge_of(PurgeKind::tag, "TAG-" + std::to_string(kMaxTags - 1)));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  Lookup leader = find(get("/b"));
  const FillDecision decision = fill(leader, 200, tagged(kMaxTags + 1), "b");
  EXPECT_EQ(decision.kind, FillDecision::Kind::pass);
  EXPECT_STREQ(decision.reason, "too-many-tags");
}

TEST_F(CacheInMemory, AnUnsafeRequestReachesBothSchemesWhereTheRouteSaysSo) {
  const auto both = [this](const char* path) {
    for (const char* scheme : {"http", "https"}) {
      RequestView request = get(path);
      request.scheme = scheme;
      Lookup leader = find(request);
      fill(leader, 200, fresh_minute(), scheme);
    }
  };
  const auto fetches = [this](const char* path, const char* scheme) {
    RequestView request = get(path);
    request.scheme = scheme;
    return find(request).outcome == LookupOutcome::fetch;
  };
  both("/a");
  cache->invalidate(get("/a", {}, "POST"), policy, response(200, {}));
  EXPECT_TRUE(fetches("/a", "https"));
  EXPECT_FALSE(fetches("/a", "http"));
  policy.purge_both_schemes = true;
  both("/b");
  cache->invalidate(get("/b", {}, "POST"), policy, response(200, {}));
  EXPECT_TRUE(fetches("/b", "https"));
  EXPECT_TRUE(fetches("/b", "http"));
}

TEST_F(CacheInMemory, APurgeByTagTakesWhatCarriesIt) {
  store("/a", {{"Cache-Control", "max-age=60"}, {"Surrogate-Key", "news sport"}}, "a");
  store("/b", {{"Cache-Control", "max-age=60"}, {"Cache-Tag", "news"}}, "b");
  store("/c", {{"Cache-Control", "max-age=60"}, {"Cache-Tag", "other"}}, "c");
  cache->purge(purge_of(PurgeKind::tag, "news"));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/b")).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/c")).outcome, LookupOutcome::hit);
}

TEST_F(CacheInMemory, ASoftPurgeLeavesAStaleResponseToValidate) {
  for (const PurgeKind kind : {PurgeKind::url, PurgeKind::tag, PurgeKind::all}) {
    store("/a", {{"Cache-Control", "max-age=60"}, {"ETag", "\"v1\""}, {"Cache-Tag", "news"}}, "a");
    cache->purge(purge_of(kind, kind == PurgeKind::tag ? "news" : "https://www.example.test/a", true));
    Lookup leader = find(get("/a"));
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
    EXPECT_EQ(leader.status.forward, Forward::stale);
    EXPECT_EQ(leader.fill.conditional_fields().size(), 1U);
    EXPECT_EQ(leader.fill.on_head(response(304, FieldList{{"Cache-Control", "max-age=60"}}), now_ms()).kind,
              FillDecision::Kind::freshened);
    EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit) << "freshened after the purge";
    cache->purge(purge_of(PurgeKind::all, ""));
  }
}

TEST_F(CacheInMemory, WhatWasBeingFetchedWhenAPurgeCameIsNotKept) {
  for (const PurgeKind kind : {PurgeKind::url, PurgeKind::tag, PurgeKind::all}) {
    Lookup leader = find(get("/a"));
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
    const FieldList tagged{{"Cache-Control", "max-age=60"}, {"Cache-Tag", "news"}};
    FillDecision decision = leader.fill.on_head(response(200, tagged, 3), now_ms());
    cache->purge(purge_of(kind, kind == PurgeKind::tag ? "news" : "https://www.example.test/a"));
    leader.fill.append("old");
    leader.fill.finish();
    EXPECT_EQ(read_all(*decision.answer), "old") << "who reads it already gets it";
    Lookup next = find(get("/a"));
    EXPECT_EQ(next.outcome, LookupOutcome::fetch);
  }
}

TEST_F(CacheInMemory, EachPurgeSequenceIsAppliedOnce) {
  cache->purge(purge_of(PurgeKind::all, "", false, 7));
  EXPECT_EQ(cache->last_applied_purge().sequence, 7U);
  store("/a", fresh_minute(), "a");
  cache->purge(purge_of(PurgeKind::all, "", false, 7));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit);
}

TEST_F(CacheInMemory, ExplainSaysWhatALookupWouldDoAndChangesNothing) {
  EXPECT_EQ(cache->explain(get("/a"), policy, now_ms()).outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch) << "explaining took no lead";
  store("/b", fresh_minute(), "b");
  const Explanation hit = cache->explain(get("/b"), policy, now_ms() + 3'000);
  EXPECT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_EQ(hit.key, "https://www.example.test/b");
  EXPECT_EQ(hit.age_s, 3U);
  EXPECT_EQ(cache->explain(get("/b", {}, "PUT"), policy, now_ms()).outcome, LookupOutcome::bypass);
}

TEST_F(CacheInMemory, TheMemoryTierStaysWithinItsBytes) {
  Options options;
  options.ram_bytes = 1 << 20;
  open(options);
  for (int i = 0; i < 200; ++i) store("/" + std::to_string(i), fresh_minute(), body_of(20'000));
  EXPECT_LE(cache->totals().ram_bytes, options.ram_bytes);
  EXPECT_GT(metric("tidegate_cache_evicted_total{tier=\"memory\"}"), 100);
  Lookup last = find(get("/199"));
  EXPECT_EQ(last.outcome, LookupOutcome::hit);
}

TEST_F(CacheInMemory, ABodyThatEndsShortIsAnErrorAndNotStored) {
  Lookup leader = find(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), 10), now_ms());
  leader.fill.append("half");
  leader.fill.finish();
  EXPECT_EQ(read_all(*decision.answer, BodyStep::error), "half");
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
}

TEST_F(CacheInMemory, ABodyOfUnknownLengthIsStoredWithItsLength) {
  Lookup leader = find(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute()), now_ms());
  EXPECT_FALSE(decision.answer->content_length);
  const std::string body = body_of(100'000);
  leader.fill.append(body);
  leader.fill.finish();
  EXPECT_EQ(read_all(*decision.answer), body);
  Lookup hit = find(get("/a"));
  EXPECT_EQ(hit.answer.content_length, 100'000U);
  EXPECT_EQ(read_all(hit.answer), body);
}

}  // namespace tidegate::cache::cache_test
