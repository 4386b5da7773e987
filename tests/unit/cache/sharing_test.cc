// SPDX-License-Identifier: Apache-2.0
// Effects of one client's request and its answer on other clients that ask for the same.
#include <gtest/gtest.h>

#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::sharing_test {

using namespace testing;

const FieldList& anonymous() {
  static const FieldList fields;
  return fields;
}
const FieldList& with_cookie() {
  static const FieldList fields{{"Cookie", "sid=A"}};
  return fields;
}
const FieldList& with_authorization() {
  static const FieldList fields{{"Authorization", "Basic eDp5"}};
  return fields;
}

FieldList reload_by(const FieldList& client) {
  FieldList fields = client;
  fields.add("Cache-Control", "no-cache");
  return fields;
}

bool carries(const Answer& answer, std::string_view name) {
  bool found = false;
  for_each_field(answer, [&](std::string_view field, std::string_view, std::string_view) { found |= field == name; });
  return found;
}

Purge purge_of(PurgeKind kind, std::string value = {}) {
  Purge purge;
  purge.kind = kind;
  purge.value = std::move(value);
  return purge;
}

class Sharing : public CacheFixture {
 protected:
  void SetUp() override { open(); }

  std::vector<std::unique_ptr<Ask>> herd(size_t count, const RequestView& request, uint64_t at_ms) {
    std::vector<std::unique_ptr<Ask>> out;
    for (size_t i = 0; i < count; ++i) out.push_back(ask(request, at_ms));
    return out;
  }
  // The state of a herd's requests once the loop is idle: how many lead, were released to fetch alone, are served, or
  // still wait.
  struct Count {
    size_t leading = 0, alone = 0, served = 0, waiting = 0;
    friend bool operator==(const Count&, const Count&) = default;
    friend std::ostream& operator<<(std::ostream& out, const Count& c) {
      return out << c.leading << " lead, " << c.alone << " alone, " << c.served << " served, " << c.waiting << " wait";
    }
  };
  Count count(const std::vector<std::unique_ptr<Ask>>& asked) {
    for (int i = 0; i < 4; ++i) loop.run_once(0);
    Count out;
    for (const auto& one : asked) {
      if (!one->found) {
        ++out.waiting;
      } else if (one->found->outcome == LookupOutcome::fetch) {
        ++out.leading;
      } else if (one->found->outcome == LookupOutcome::bypass) {
        ++out.alone;
      } else {
        ++out.served;
      }
    }
    return out;
  }
  // Takes the leader out of the herd and returns it.
  Lookup take_leader(std::vector<std::unique_ptr<Ask>>& asked) {
    const auto leads = [](const auto& one) { return one->found && one->found->outcome == LookupOutcome::fetch; };
    const auto found = std::find_if(asked.begin(), asked.end(), leads);
    if (found == asked.end()) {
      ADD_FAILURE() << "nobody leads";
      return {};
    }
    Lookup leader = std::move(*(*found)->found);
    asked.erase(found);
    return leader;
  }
  FillDecision not_modified(Lookup& leader, const FieldList& fields) {
    if (!leader.fill) {
      ADD_FAILURE() << "does not lead";
      return {};
    }
    return leader.fill.on_head(response(304, fields), now_ms());
  }
};

// --- a 304 is a response

TEST_F(Sharing, WhatA304MayNotLeaveBehindReachesTheOneWhoAskedAlone) {
  struct Case {
    const char* what;
    FieldList fields;
    const char* personal;  // the field that other clients must not get
    bool kept;             // true if the fresh stored answer continues to serve
  };
  const Case cases[] = {
      {"a cookie", {{"Set-Cookie", "sid=A"}}, "set-cookie", true},
      {"private", {{"Cache-Control", "private, max-age=60"}, {"X-User", "A"}}, "x-user", false},
      {"no-store", {{"Cache-Control", "no-store"}, {"X-User", "A"}}, "x-user", false},
      {"targeted", {{"CDN-Cache-Control", "private"}, {"X-User", "A"}}, "x-user", false},
      {"private field", {{"Cache-Control", "max-age=60, private=\"x-user\""}, {"X-User", "A"}}, "x-user", true},
      {"no-cache field",
       {{"Cache-Control", "max-age=60, no-cache=\"set-cookie\""}, {"Set-Cookie", "a"}},
       "set-cookie",
       true},
      {"another Vary", {{"Vary", "X-Tenant"}, {"X-User", "A"}}, "x-user", false},
      {"Vary: *", {{"Vary", "*"}, {"X-User", "A"}}, "x-user", false},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    const std::string path = "/" + std::string(c.what);
    store(path, fresh_minute(), "body");
    Lookup leader = find(get(path, reload_by(anonymous())));
    FieldList fields = c.fields;
    fields.add("ETag", "\"v1\"");
    FillDecision decision = not_modified(leader, fields);
    ASSERT_TRUE(decision.answer);
    EXPECT_EQ(decision.answer->status, 200);
    EXPECT_TRUE(carries(*decision.answer, c.personal)) << "the one who asked";
    EXPECT_EQ(read_all(*decision.answer), "body");
    Lookup other = find(get(path));
    EXPECT_EQ(other.outcome, c.kept ? LookupOutcome::hit : LookupOutcome::fetch) << name(other.outcome);
    if (other.outcome != LookupOutcome::hit) continue;
    EXPECT_FALSE(carries(other.answer, c.personal)) << "another client";
    EXPECT_EQ(read_all(other.answer), "body");
  }
}

TEST_F(Sharing, APersonal304OfOneClientTakesNothingFromTheOthers) {
  for (const FieldList& client : {with_cookie(), with_authorization()}) {
    for (const char* control : {"private", "no-store"}) {
      store("/a", fresh_minute(), "body");
      Lookup leader = find(get("/a", reload_by(client)));
      FillDecision decision = not_modified(
          leader, {{"ETag", "\"v1\""}, {"Cache-Control", control}, {"X-User", "A"}, {"Set-Cookie", "s=A"}});
      ASSERT_TRUE(decision.answer);
      EXPECT_TRUE(carries(*decision.answer, "x-user"));
      EXPECT_TRUE(carries(*decision.answer, "set-cookie"));
      Lookup other = find(get("/a"));
      ASSERT_EQ(other.outcome, LookupOutcome::hit);
      EXPECT_FALSE(carries(other.answer, "x-user"));
      EXPECT_FALSE(carries(other.answer, "set-cookie"));
      cache->purge(purge_of(PurgeKind::all));
    }
  }
}

TEST_F(Sharing, A304ToAuthorizationIsKeptOnlyWithTheOriginsWord) {  // RFC 9111 §3.5
  const FieldList short_lived{{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}};
  const uint64_t later = now_ms() + 5'000;
  store("/a", short_lived, "body");
  Lookup leader = find(get("/a", with_authorization()), later);
  FillDecision decision = not_modified(leader, {{"Cache-Control", "max-age=60"}, {"X-User", "A"}});
  ASSERT_TRUE(decision.answer);
  EXPECT_TRUE(carries(*decision.answer, "x-user"));
  Lookup other = find(get("/a"), later);
  ASSERT_EQ(other.outcome, LookupOutcome::fetch) << "stale as before";
  ASSERT_EQ(other.fill.conditional_fields().size(), 1U) << "and worth a validation still";
  other.fill.fail(FillFailure::leader_gone, "test");

  Lookup again = find(get("/a", with_authorization()), later);
  not_modified(again, {{"Cache-Control", "public, max-age=60"}, {"X-User", "all"}});
  Lookup hit = find(get("/a"), later);
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_TRUE(carries(hit.answer, "x-user"));
}

TEST_F(Sharing, WaitersGetNothingOfALeadersPersonal304) {
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}}, "body");
  const uint64_t later = now_ms() + 5'000;
  const FieldList personal{{"ETag", "\"v1\""}, {"Set-Cookie", "sid=A"}};
  Lookup leader = find(get("/a", with_cookie()), later);
  auto waiters = herd(20, get("/a"), later);
  EXPECT_EQ(count(waiters), (Count{0, 0, 0, 20}));
  EXPECT_TRUE(carries(*not_modified(leader, personal).answer, "set-cookie"));
  EXPECT_EQ(count(waiters), (Count{1, 0, 0, 19})) << "one of them asks anew, the others wait for it";
  Lookup second = take_leader(waiters);
  ASSERT_EQ(second.fill.conditional_fields().size(), 1U);
  EXPECT_TRUE(not_modified(second, {{"ETag", "\"v1\""}, {"Cache-Control", "max-age=60"}}).answer);
  EXPECT_EQ(count(waiters), (Count{0, 0, 19, 0}));
  for (const auto& waiter : waiters) EXPECT_FALSE(carries(waiter->found->answer, "set-cookie"));
}

TEST_F(Sharing, WaitersOfAKeyWhose304sAreAllPersonalAreNotHeldUpForLong) {
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}}, "body");
  const uint64_t later = now_ms() + 5'000;
  const FieldList personal{{"ETag", "\"v1\""}, {"Set-Cookie", "sid=A"}};
  Lookup leader = find(get("/a", with_cookie()), later);
  auto waiters = herd(20, get("/a", with_cookie()), later);
  not_modified(leader, personal);
  EXPECT_EQ(count(waiters), (Count{1, 0, 0, 19}));
  Lookup second = take_leader(waiters);
  not_modified(second, personal);
  EXPECT_EQ(count(waiters), (Count{0, 19, 0, 0})) << "two in a row: each asks for itself";
}

TEST_F(Sharing, AnOrdinary304StillAnswersAWholeHerd) {
  store("/a", {{"Cache-Control", "max-age=1"}, {"ETag", "\"v1\""}, {"X-A", "old"}}, "body");
  const uint64_t later = now_ms() + 5'000;
  Lookup leader = find(get("/a", with_cookie()), later);
  auto waiters = herd(100, get("/a"), later);
  not_modified(leader, {{"ETag", "\"v1\""}, {"Cache-Control", "max-age=60"}, {"X-A", "new"}});
  EXPECT_EQ(count(waiters), (Count{0, 0, 100, 0}));
  for (const auto& waiter : waiters)
    EXPECT_NE(waiter->found->answer.head->field_text.find("x-a: new"), std::string::npos);
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit);
}

TEST_F(Sharing, A304BringsTheTagsUpToDate) {
  store("/a", {{"Cache-Control", "max-age=60"}, {"ETag", "\"v1\""}, {"Cache-Tag", "old"}}, "body");
  Lookup leader = find(get("/a", reload_by(anonymous())));
  not_modified(leader, {{"ETag", "\"v1\""}, {"Cache-Tag", "new"}});
  cache->purge(purge_of(PurgeKind::tag, "old"));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit);
  cache->purge(purge_of(PurgeKind::tag, "new"));
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
}

// --- revalidation in the background

TEST_F(Sharing, ABackgroundFetchIsNobodysInParticular) {
  store("/a", {{"Cache-Control", "max-age=1, stale-while-revalidate=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup stale = find(get("/a", with_authorization()), later);
  ASSERT_EQ(stale.outcome, LookupOutcome::stale);
  EXPECT_EQ(fill(stale, 200, fresh_minute(), "new").kind, FillDecision::Kind::store) << "sent without credentials";
  Lookup hit = find(get("/a"));
  EXPECT_EQ(read_all(hit.answer), "new");
}

TEST_F(Sharing, AWaiterThatTakesOverABackgroundFetchIsAnswered) {
  store("/a", {{"Cache-Control", "max-age=1, stale-while-revalidate=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup stale = find(get("/a"), later);
  ASSERT_EQ(stale.outcome, LookupOutcome::stale);
  auto waiters = herd(2, get("/a", FieldList{{"Cache-Control", "min-fresh=1"}}), later);
  EXPECT_EQ(count(waiters), (Count{0, 0, 0, 2}));
  stale.fill.fail(FillFailure::leader_gone, "test");
  EXPECT_EQ(count(waiters), (Count{1, 0, 0, 1}));
  Lookup leader = take_leader(waiters);
  FillDecision decision = not_modified(leader, {{"ETag", "\"v1\""}, {"Cache-Control", "max-age=60"}});
  ASSERT_TRUE(decision.answer) << "it has a client";
  EXPECT_EQ(read_all(*decision.answer), "old");
}

// --- one odd request

TEST_F(Sharing, OneRequestWithAuthorizationLetsNoHerdLoose) {
  Lookup leader = find(get("/a", with_authorization()));
  auto waiters = herd(100, get("/a"), now_ms());
  EXPECT_EQ(fill(leader, 200, fresh_minute(), "mine").kind, FillDecision::Kind::pass);
  EXPECT_EQ(count(waiters), (Count{1, 0, 0, 99}));
  Lookup second = take_leader(waiters);
  EXPECT_EQ(fill(second, 200, fresh_minute(), "ours").kind, FillDecision::Kind::store);
  EXPECT_EQ(count(waiters), (Count{0, 0, 99, 0}));
}

TEST_F(Sharing, RequestsWithAuthorizationDoNotWaitForEachOtherInVain) {
  Lookup leader = find(get("/a", with_authorization()));
  auto waiters = herd(20, get("/a", with_authorization()), now_ms());
  EXPECT_EQ(fill(leader, 200, fresh_minute(), "mine").kind, FillDecision::Kind::pass);
  EXPECT_EQ(count(waiters), (Count{0, 20, 0, 0}));
  EXPECT_EQ(count(herd(20, get("/a", with_authorization()), now_ms())), (Count{20, 0, 0, 0})) << "remembered of them";
}

TEST_F(Sharing, AnOddRequestDoesNotSwitchCoalescingOffForTheKey) {
  const auto provoke = [this](const FieldList& request, uint16_t status, const FieldList& fields) {
    Lookup leader = find(get("/a", request));
    EXPECT_EQ(fill(leader, status, fields, "").kind, FillDecision::Kind::pass);
    auto later = herd(100, get("/a"), now_ms());
    EXPECT_EQ(count(later), (Count{1, 0, 0, 99})) << status;
    take_leader(later).fill.fail(FillFailure::backend_failed, "test");
  };
  provoke(with_authorization(), 200, fresh_minute());
  for (const auto status : std::initializer_list<uint16_t>{400, 403, 404, 429, 431, 500, 503})
    provoke(anonymous(), status, {});
  provoke(with_cookie(), 200, {{"Cache-Control", "private"}});
  provoke(with_cookie(), 200, {{"Cache-Control", "max-age=60"}, {"Set-Cookie", "sid=A"}});
}

TEST_F(Sharing, WaitersOfAnErrorAskAnewOneForAllButNotForEver) {
  Lookup leader = find(get("/a"));
  auto waiters = herd(100, get("/a"), now_ms());
  EXPECT_EQ(fill(leader, 503, {}, "").kind, FillDecision::Kind::pass);
  EXPECT_EQ(count(waiters), (Count{1, 0, 0, 99}));
  Lookup second = take_leader(waiters);
  EXPECT_EQ(fill(second, 503, {}, "").kind, FillDecision::Kind::pass);
  EXPECT_EQ(count(waiters), (Count{0, 99, 0, 0}));
}

TEST_F(Sharing, AReloadThatFailsKeepsWhatIsFresh) {  // RFC 9111 §4.3.3
  for (const auto status : std::initializer_list<uint16_t>{400, 403, 404, 414, 429, 500, 501, 502, 503}) {
    store("/a", fresh_minute(), "body");
    Lookup leader = find(get("/a", reload_by(anonymous())));
    policy.default_ttl_ms = 5'000;  // errors may be stored for a while, but not in place of a fresh answer
    EXPECT_EQ(fill(leader, status, {}, "").kind, FillDecision::Kind::pass) << "the one who asked sees the error";
    policy.default_ttl_ms = 0;
    Lookup hit = find(get("/a"));
    ASSERT_EQ(hit.outcome, LookupOutcome::hit) << status;
    EXPECT_EQ(hit.answer.status, 200);
    cache->purge(purge_of(PurgeKind::all));
  }
  store("/a", fresh_minute(), "body");
  Lookup leader = find(get("/a", reload_by(with_authorization())));
  EXPECT_EQ(fill(leader, 200, fresh_minute(), "mine").kind, FillDecision::Kind::pass);
  Lookup hit = find(get("/a"));
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  EXPECT_EQ(read_all(hit.answer), "body");
}

TEST_F(Sharing, AnErrorWithALifetimeOfItsOwnAndAGoneResourceStillCount) {
  store("/a", fresh_minute(), "body");
  Lookup leader = find(get("/a", reload_by(anonymous())));
  EXPECT_EQ(fill(leader, 410, FieldList{{"Cache-Control", "max-age=60"}}, "").kind, FillDecision::Kind::store);
  EXPECT_EQ(find(get("/a")).answer.status, 410);

  store("/b", {{"Cache-Control", "max-age=1, stale-while-revalidate=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup stale = find(get("/b"), later);
  ASSERT_TRUE(stale.fill);
  stale.fill.on_head(response(404, {}, 0), later);
  EXPECT_EQ(find(get("/b"), later).outcome, LookupOutcome::fetch) << "not served stale once it is gone";
}

// --- fields that belong to one client (RFC 9111 §5.2.2.4, §5.2.2.7)

TEST_F(Sharing, WithheldFieldsReachTheClientWhoseRequestFetchedThem) {
  const FieldList fields{{"Cache-Control", "max-age=60, no-cache=\"set-cookie\", private=\"x-user\""},
                         {"Set-Cookie", "sid=A"},
                         {"X-User", "A"},
                         {"X-All", "1"}};
  Lookup leader = find(get("/a"));
  auto waiters = herd(3, get("/a"), now_ms());
  FillDecision decision = fill(leader, 200, fields, "body");
  ASSERT_TRUE(decision.answer);
  for (const char* name : {"set-cookie", "x-user", "x-all"}) EXPECT_TRUE(carries(*decision.answer, name)) << name;
  EXPECT_EQ(read_all(*decision.answer), "body");
  EXPECT_EQ(count(waiters), (Count{0, 0, 3, 0}));
  Lookup hit = find(get("/a"));
  ASSERT_EQ(hit.outcome, LookupOutcome::hit);
  for (const char* name : {"set-cookie", "x-user"}) {
    EXPECT_FALSE(carries(hit.answer, name)) << name;
    for (const auto& waiter : waiters) EXPECT_FALSE(carries(waiter->found->answer, name)) << name;
  }
  EXPECT_TRUE(carries(hit.answer, "x-all"));
}

}  // namespace tidegate::cache::sharing_test
