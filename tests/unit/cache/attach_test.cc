// SPDX-License-Identifier: Apache-2.0
// Coalescing: one fetch for many readers.
#include <gtest/gtest.h>

#include "cache/limits.h"
#include "cache/serve/flight.h"
#include "tests/unit/cache/cache_fixture.h"

namespace tidegate::cache::attach_test {

using namespace testing;

class Attaching : public CacheFixture {
 protected:
  void SetUp() override { open(); }
  std::vector<std::unique_ptr<Ask>> herd(size_t count, const RequestView& request) {
    std::vector<std::unique_ptr<Ask>> out;
    for (size_t i = 0; i < count; ++i) out.push_back(ask(request));
    return out;
  }
};

TEST_F(Attaching, AHundredClientsOfAColdKeyAreOneFetch) {
  Lookup leader = find(get("/a"));
  auto waiters = herd(100, get("/a"));
  for (const auto& waiter : waiters) ASSERT_FALSE(waiter->found);
  fill(leader, 200, fresh_minute(), "hello");
  for (auto& waiter : waiters) {
    Lookup attached = settle(std::move(waiter));
    ASSERT_EQ(attached.outcome, LookupOutcome::attach);
    EXPECT_TRUE(attached.status.collapsed);
    EXPECT_EQ(read_all(attached.answer), "hello");
  }
}

TEST_F(Attaching, ReadersFollowTheBodyAsItArrives) {
  Lookup leader = find(get("/a"));
  auto waiter = ask(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), 10), now_ms());
  leader.fill.append("01234");
  Lookup attached = settle(std::move(waiter));
  bool ready = false;
  attached.answer.body.on_ready([&ready] { ready = true; });
  Slice slice;
  ASSERT_EQ(attached.answer.body.next(slice), BodyStep::data);
  EXPECT_EQ(slice.bytes, "01234");
  ASSERT_EQ(attached.answer.body.next(slice), BodyStep::wait);
  loop.run_once(0);
  EXPECT_FALSE(ready);
  leader.fill.append("56789");
  while (!ready) loop.run_once(kNsPerS);
  ASSERT_EQ(attached.answer.body.next(slice), BodyStep::data);
  EXPECT_EQ(slice.bytes, "56789");
  // The body is complete by its length, although the leader has not finished.
  EXPECT_EQ(attached.answer.body.next(slice), BodyStep::end);
  Lookup late = find(get("/a"));
  EXPECT_EQ(late.outcome, LookupOutcome::attach) << "a latecomer joins at the beginning";
  leader.fill.finish();
  EXPECT_EQ(read_all(late.answer), "0123456789");
}

TEST_F(Attaching, AnUncacheableAnswerLetsAllWaitersGoAtOnceAndIsRemembered) {
  Lookup leader = find(get("/a"));
  auto waiters = herd(100, get("/a"));
  EXPECT_EQ(fill(leader, 200, FieldList{{"Cache-Control", "private"}}, "").kind, FillDecision::Kind::pass);
  for (auto& waiter : waiters) {
    const Lookup released = settle(std::move(waiter));
    EXPECT_EQ(released.outcome, LookupOutcome::bypass);
    EXPECT_STREQ(released.status.detail, "private");
  }
  Lookup one = find(get("/a"));
  Lookup two = find(get("/a"));
  EXPECT_EQ(one.outcome, LookupOutcome::fetch) << "nobody waits any more";
  EXPECT_EQ(two.outcome, LookupOutcome::fetch);
  EXPECT_EQ(find(get("/a", FieldList{{"Range", "bytes=0-1"}})).outcome, LookupOutcome::bypass);
  // The path has become cacheable: the next answer is stored.
  fill(one, 200, fresh_minute(), "hello");
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit);
}

TEST_F(Attaching, AHerdOfReloadsIsOneFetch) {
  for (const FieldList& reload : {FieldList{{"Cache-Control", "no-cache"}}, FieldList{{"Cache-Control", "max-age=0"}},
                                  FieldList{{"Pragma", "no-cache"}}}) {
    store("/a", fresh_minute(), "old");
    Lookup leader = find(get("/a", reload));
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
    EXPECT_EQ(leader.status.forward, Forward::request);
    auto waiters = herd(100, get("/a", reload));
    for (const auto& waiter : waiters) ASSERT_FALSE(waiter->found);
    EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::hit) << "who does not reload does not wait";
    fill(leader, 200, fresh_minute(), "new");
    for (auto& waiter : waiters) {
      Lookup attached = settle(std::move(waiter));
      ASSERT_EQ(attached.outcome, LookupOutcome::attach);
      EXPECT_EQ(read_all(attached.answer), "new");
    }
    Lookup again = find(get("/a", reload));
    auto others = herd(100, get("/a", reload));
    EXPECT_EQ(again.fill.on_head(response(304, fresh_minute()), now_ms()).kind, FillDecision::Kind::freshened);
    for (auto& waiter : others) EXPECT_EQ(settle(std::move(waiter)).outcome, LookupOutcome::hit);
    Purge all;
    all.kind = PurgeKind::all;
    cache->purge(all);
  }
}

TEST_F(Attaching, AHerdWithIfMatchIsOneFetch) {
  const FieldList one{{"If-Match", "\"v1\""}}, other{{"If-Match", "\"v0\""}};
  for (const bool is_stored : {false, true}) {
    if (is_stored) store("/a", {{"Cache-Control", "max-age=60"}, {"ETag", "\"v2\""}}, "old");
    Lookup leader = find(get("/a", one));
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
    auto waiters = herd(50, get("/a", one)), others = herd(50, get("/a", other));
    for (const auto& waiter : waiters) ASSERT_FALSE(waiter->found);
    for (const auto& waiter : others) ASSERT_FALSE(waiter->found);
    fill(leader, 200, fresh_minute(), "new");
    for (auto& waiter : waiters) {
      Lookup attached = settle(std::move(waiter));
      ASSERT_EQ(attached.outcome, LookupOutcome::attach);
      EXPECT_EQ(attached.answer.status, 200);
      EXPECT_EQ(read_all(attached.answer), "new");
    }
    for (auto& waiter : others) {
      Lookup attached = settle(std::move(waiter));
      EXPECT_EQ(attached.answer.status, 412);
      EXPECT_EQ(read_all(attached.answer), "");
    }
    Purge all;
    all.kind = PurgeKind::all;
    cache->purge(all);
  }
}

TEST_F(Attaching, AFetchWhoseClientLeftBeforeTheHeadIsWantedAsLongAsSomebodyWaits) {
  Lookup alone = find(get("/alone"));
  EXPECT_FALSE(alone.fill.wanted()) << "nobody else waits";
  Lookup leader = find(get("/a"));
  auto first = ask(get("/a")), second = ask(get("/a"));
  bool asked = false;
  leader.fill.on_resume([&asked] { asked = true; });
  first->pending = Pending();
  loop.run_once(0);
  EXPECT_FALSE(asked);
  EXPECT_TRUE(leader.fill.wanted());
  second->pending = Pending();
  loop.run_once(0);
  EXPECT_TRUE(asked) << "the leader is told, though the backend says nothing";
  EXPECT_FALSE(leader.fill.wanted());
  auto late = ask(get("/a"));
  EXPECT_FALSE(late->found);
  EXPECT_TRUE(leader.fill.wanted()) << "one came back";
  asked = false;
  fill(leader, 200, fresh_minute(), "x");
  Lookup attached = settle(std::move(late));
  EXPECT_EQ(read_all(attached.answer), "x");
  loop.run_once(0);
  EXPECT_FALSE(asked) << "a leader that has its head is not called any more";
}

TEST_F(Attaching, AFetchInTheBackgroundIsWantedByTheCacheItself) {
  store("/a", {{"Cache-Control", "max-age=1, stale-while-revalidate=60"}, {"ETag", "\"v1\""}}, "old");
  Lookup stale = find(get("/a"), now_ms() + 5'000);
  ASSERT_EQ(stale.outcome, LookupOutcome::stale);
  ASSERT_TRUE(stale.fill);
  EXPECT_TRUE(stale.fill.wanted());
}

TEST_F(Attaching, AReloadThatWaitedIsNotGivenWhatStandsInForAnError) {
  store("/a", {{"Cache-Control", "max-age=1, stale-if-error=60"}, {"ETag", "\"v1\""}}, "old");
  const uint64_t later = now_ms() + 5'000;
  Lookup leader = find(get("/a"), later);
  auto reload = ask(get("/a", FieldList{{"Cache-Control", "no-cache"}}), later);
  auto plain = ask(get("/a"), later);
  EXPECT_EQ(leader.fill.on_head(response(503, {}, 0), later).kind, FillDecision::Kind::serve_stale);
  EXPECT_EQ(settle(std::move(plain)).outcome, LookupOutcome::stale);
  Lookup own = settle(std::move(reload));
  EXPECT_EQ(own.outcome, LookupOutcome::fetch);
  EXPECT_EQ(own.fill.on_head(response(503, {}, 0), later).kind, FillDecision::Kind::pass);
}

// An origin behind another cache may have nothing younger than max-age, or nothing that lasts as long as min-fresh.
TEST_F(Attaching, AnAnswerThatIsTooOldForItsLeaderIsGoodForAllWhoAskAlike) {
  const FieldList aged{{"Cache-Control", "max-age=1000"}, {"Age", "100"}};
  int number = 0;
  for (const char* limits : {"max-age=50", "max-age=50, max-stale=10", "min-fresh=6000"}) {
    const std::string path = "/" + std::to_string(++number);
    const FieldList fields{{"Cache-Control", limits}};
    for (const char* cold_or_stored : {"cold", "stored"}) {
      Lookup leader = find(get(path, fields));
      ASSERT_EQ(leader.outcome, LookupOutcome::fetch) << limits << " " << cold_or_stored;
      auto waiters = herd(20, get(path, fields));
      EXPECT_EQ(fill(leader, 200, aged, "x").kind, FillDecision::Kind::store);
      for (auto& waiter : waiters) EXPECT_EQ(settle(std::move(waiter)).outcome, LookupOutcome::attach) << limits;
    }
  }
}

TEST_F(Attaching, ThoseWhoAskForMoreThanTheirLeaderDoNotQueueUpOneBehindTheOther) {
  const FieldList aged{{"Cache-Control", "max-age=1000"}, {"Age", "100"}};
  Lookup first = find(get("/a"));
  std::vector<std::unique_ptr<Ask>> waiters;
  for (int i = 0; i < 20; ++i) {  // each request wants it younger than the one before
    waiters.push_back(ask(get("/a", FieldList{{"Cache-Control", "max-age=" + std::to_string(90 - i)}})));
  }
  fill(first, 200, aged, "x");
  size_t leaders = 0, alone = 0;
  for (auto& waiter : waiters) {
    Lookup found = settle(std::move(waiter));
    if (found.outcome == LookupOutcome::fetch) {
      ++leaders;
      fill(found, 200, aged, "x");
    } else {
      alone += found.outcome == LookupOutcome::bypass;
    }
  }
  EXPECT_LE(leaders, size_t{kMaxRefusals});
  EXPECT_EQ(leaders + alone, 20u);
}

class AttachingPlaces : public Attaching {
 protected:
  void refuse(std::string_view path, uint16_t status = 200) {
    Lookup leader = find(get(path));
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
    EXPECT_EQ(fill(leader, status, FieldList{{"Cache-Control", "no-store"}}, "").kind, FillDecision::Kind::pass);
  }
  void expect_alone(const RequestView& request) {
    Lookup leader = find(request);
    EXPECT_EQ(cache->explain(request, policy, now_ms()).outcome, LookupOutcome::fetch);
    EXPECT_EQ(leader.outcome, LookupOutcome::fetch);
    EXPECT_EQ(leader.status.forward, Forward::uri_miss);
    EXPECT_FALSE(leader.status.collapsed);
    auto waiters = herd(3, request);
    for (auto& waiter : waiters) {
      ASSERT_TRUE(waiter->found) << "nobody waits";
      EXPECT_EQ(waiter->found->outcome, LookupOutcome::fetch);
      EXPECT_FALSE(waiter->found->status.collapsed);
    }
  }
  void expect_coalesced(const RequestView& request) {
    Lookup leader = find(request);
    ASSERT_EQ(leader.outcome, LookupOutcome::fetch);
    auto waiters = herd(3, request);
    for (const auto& waiter : waiters) EXPECT_FALSE(waiter->found);
    EXPECT_EQ(cache->explain(request, policy, now_ms()).outcome, LookupOutcome::attach);
    leader.fill.fail(FillFailure::backend_failed, "reset");
    for (auto& waiter : waiters) EXPECT_EQ(settle(std::move(waiter)).outcome, LookupOutcome::failed);
  }
};

TEST_F(AttachingPlaces, UnseenKeysOfAPlaceThatIsUncacheableDoNotWaitAndOthersDo) {
  refuse("/live/a");
  expect_alone(get("/live/b"));
  expect_alone(get("/live/"));
  const Lookup part = find(get("/live/c", FieldList{{"Range", "bytes=0-1"}}));
  EXPECT_EQ(part.outcome, LookupOutcome::bypass);
  EXPECT_STREQ(part.status.detail, "uncacheable-place");
  expect_coalesced(get("/live/deeper/b"));
  expect_coalesced(get("/"));
  RequestView elsewhere = get("/live/b");
  elsewhere.host = "other.example.test";
  expect_coalesced(elsewhere);
  elsewhere = get("/live/b");
  elsewhere.scheme = "http";
  expect_coalesced(elsewhere);
}

TEST_F(AttachingPlaces, AnAnswerThatIsStoredMakesItsPlaceForgetAtOnceAndBeTrusted) {
  refuse("/mixed/a");
  Lookup one = find(get("/mixed/b"));
  Lookup two = find(get("/mixed/b"));
  ASSERT_EQ(two.outcome, LookupOutcome::fetch);
  ASSERT_EQ(one.fill.on_head(response(200, fresh_minute(), 5), now_ms()).kind, FillDecision::Kind::store);
  expect_coalesced(get("/mixed/c"));  // the head is enough
  refuse("/mixed/d");
  expect_coalesced(get("/mixed/e"));
}

TEST_F(AttachingPlaces, WhatTheRequestOrAnErrorBroughtAboutSaysNothingOfThePlace) {
  refuse("/kind/missing", 404);
  refuse("/kind/broken", 503);
  Lookup leader = find(get("/kind/mine", FieldList{{"Authorization", "Basic eDp5"}}));
  EXPECT_EQ(fill(leader, 200, fresh_minute(), "").kind, FillDecision::Kind::pass);
  expect_coalesced(get("/kind/b"));
}

TEST_F(AttachingPlaces, AKeyOfWhichSomethingIsStoredIsJudgedByItself) {
  Lookup leader = find(get("/own/a"));
  ASSERT_EQ(fill(leader, 200, FieldList{{"Cache-Control", "max-age=1200"}, {"ETag", "\"v1\""}}, "x").kind,
            FillDecision::Kind::store);
  const uint64_t later = now_ms() + UncacheablePlaces::kTrustMs + 1;
  Lookup other = find(get("/own/b"), later);
  ASSERT_EQ(other.fill.on_head(response(200, FieldList{{"Cache-Control", "no-store"}}, 0), later).kind,
            FillDecision::Kind::pass);
  const Lookup unseen = find(get("/own/c"), later), unseen_too = find(get("/own/c"), later);
  EXPECT_EQ(unseen_too.outcome, LookupOutcome::fetch);
  const uint64_t stale = later + 1'000'000;
  Lookup again = find(get("/own/b"), stale);
  ASSERT_EQ(again.fill.on_head(response(200, FieldList{{"Cache-Control", "no-store"}}, 0), stale).kind,
            FillDecision::Kind::pass);
  Lookup validates = find(get("/own/a"), stale);
  ASSERT_EQ(validates.outcome, LookupOutcome::fetch);
  EXPECT_FALSE(ask(get("/own/a"), stale)->found) << "waits for the validation";
}

TEST_F(Attaching, AWaiterTakesOverFromALeaderThatLeaves) {
  Lookup leader = find(get("/a"));
  auto first = ask(get("/a"));
  auto second = ask(get("/a"));
  leader.fill = Fill();
  Lookup promoted = settle(std::move(first));
  ASSERT_EQ(promoted.outcome, LookupOutcome::fetch);
  EXPECT_FALSE(second->found);
  fill(promoted, 200, fresh_minute(), "hello");
  Lookup attached = settle(std::move(second));
  EXPECT_EQ(read_all(attached.answer), "hello");
}

TEST_F(Attaching, AWaiterThatLeftIsPassedOver) {
  Lookup leader = find(get("/a"));
  auto gone = ask(get("/a"));
  auto next = ask(get("/a"));
  gone->pending = Pending();
  leader.fill = Fill();
  EXPECT_EQ(settle(std::move(next)).outcome, LookupOutcome::fetch);
  EXPECT_FALSE(gone->called_back);
}

TEST_F(Attaching, LeadershipOfferedToAClientThatLeavesMeanwhileIsPassedOn) {
  Lookup leader = find(get("/a"));
  auto first = ask(get("/a"));
  auto second = ask(get("/a"));
  leader.fill = Fill();        // the offer to `first` is now in the mailbox
  first->pending = Pending();  // nobody will accept it
  EXPECT_EQ(settle(std::move(second)).outcome, LookupOutcome::fetch);
  EXPECT_FALSE(first->called_back);
}

TEST_F(Attaching, ADeadBackendAnswersAllWaitersAtOnce) {
  Lookup leader = find(get("/a"));
  auto waiters = herd(10, get("/a"));
  leader.fill.fail(FillFailure::backend_failed, "connect-refused");
  for (auto& waiter : waiters) {
    const Lookup failed = settle(std::move(waiter));
    EXPECT_EQ(failed.outcome, LookupOutcome::failed);
    EXPECT_STREQ(failed.status.detail, "connect-refused");
  }
}

TEST_F(Attaching, ALeaderThatFailsMidwayErrorsItsReadersAndNothingIsStored) {
  Lookup leader = find(get("/a"));
  auto waiter = ask(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), 10), now_ms());
  leader.fill.append("01234");
  Lookup attached = settle(std::move(waiter));
  leader.fill.fail(FillFailure::backend_failed, "reset");
  EXPECT_EQ(read_all(attached.answer, BodyStep::error), "01234");
  EXPECT_EQ(find(get("/a")).outcome, LookupOutcome::fetch);
}

TEST_F(Attaching, OtherVariantsDoNotWaitForOneTheyCannotUse) {
  Lookup leader = find(get("/a", FieldList{{"Accept-Encoding", "gzip"}}));
  auto zipped = ask(get("/a", FieldList{{"Accept-Encoding", "gzip"}}));
  auto plain = ask(get("/a"));
  auto plain_too = ask(get("/a"));
  const FieldList vary{{"Cache-Control", "max-age=60"}, {"Vary", "Accept-Encoding"}};
  FillDecision decision = leader.fill.on_head(response(200, vary, 6), now_ms());
  EXPECT_EQ(settle(std::move(zipped)).outcome, LookupOutcome::attach);
  Lookup second_leader = settle(std::move(plain));
  ASSERT_EQ(second_leader.outcome, LookupOutcome::fetch) << "told by the head, without waiting for the body";
  fill(second_leader, 200, vary, "plain");
  Lookup attached = settle(std::move(plain_too));
  EXPECT_EQ(read_all(attached.answer), "plain");
}

TEST_F(Attaching, ResponsesThatNeedValidationEachTimeAreNotSharedByWaiting) {
  Lookup leader = find(get("/a"));
  auto waiters = herd(5, get("/a"));
  fill(leader, 200, FieldList{{"Cache-Control", "no-cache"}, {"ETag", "\"v1\""}}, "x");
  for (auto& waiter : waiters) EXPECT_EQ(settle(std::move(waiter)).outcome, LookupOutcome::bypass);
}

TEST_F(Attaching, TheFillGoesOnForJoinersWhenItsOwnClientLeaves) {
  Lookup leader = find(get("/a"));
  auto waiter = ask(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute(), 50'000'000), now_ms());
  decision.answer.reset();
  Lookup attached = settle(std::move(waiter));
  EXPECT_EQ(leader.fill.append("01234"), FillStep::more);
  attached = Lookup();
  EXPECT_EQ(leader.fill.append("01234"), FillStep::stop) << "nobody reads and most of it is missing";
}

TEST_F(Attaching, AFastBackendIsPacedByTheSlowestReaderOnceTheWindowIsFull) {
  Lookup leader = find(get("/a"));
  FillDecision decision = leader.fill.on_head(response(200, fresh_minute()), now_ms());
  bool resumed = false;
  leader.fill.on_resume([&resumed] { resumed = true; });
  const std::string piece = body_of(kChunkBytes);
  std::string sent;
  FillStep step = FillStep::more;
  while (step == FillStep::more) {
    ASSERT_LT(sent.size(), 2 * kWindowBytes) << "without a bound";
    step = leader.fill.append(piece);
    sent += piece;
  }
  ASSERT_EQ(step, FillStep::pause);
  decision.answer->body.on_ready([] {});
  std::string read;
  while (!resumed) {
    Slice slice;
    ASSERT_EQ(decision.answer->body.next(slice), BodyStep::data);
    read += slice.bytes;
    loop.run_once(0);
  }
  leader.fill.finish();
  read += read_all(*decision.answer);
  EXPECT_TRUE(read == sent);
}

class AttachingLaggards : public CacheFixture {
 protected:
  void SetUp() override {
    Options options;
    options.laggard_ms = 20;
    open(options);
    leader = find(get("/a"));
    auto asked = ask(get("/a"));
    decision = leader.fill.on_head(response(200, fresh_minute()), now_ms());
    attached = settle(std::move(asked));
    leader.fill.on_resume([this] { resumed = true; });
  }
  void fill_window() {
    resumed = false;
    FillStep step = FillStep::more;
    while (step == FillStep::more) {
      step = leader.fill.append(piece);
      sent += piece;
    }
    ASSERT_EQ(step, FillStep::pause);
  }
  // Reads everything that is available now.
  void read_on(Answer& answer, std::string& read) {
    Slice slice;
    while (answer.body.next(slice) == BodyStep::data) read += slice.bytes;
  }
  double given_up() { return metric("tidegate_cache_laggards_total"); }

  const std::string piece = body_of(kChunkBytes);
  std::string sent;
  Lookup leader, attached;
  FillDecision decision;
  bool resumed = false;
};

TEST_F(AttachingLaggards, AReaderThatKeepsTheOthersWaitingIsWaitedForNoLonger) {
  fill_window();
  std::string read;
  attached.answer.body.on_ready([] {});
  read_on(attached.answer, read);
  EXPECT_TRUE(read == sent);
  while (!resumed) loop.run_once(kNsPerS);  // the leader's own client reads nothing, so the others stop waiting for it
  EXPECT_EQ(given_up(), 1);
  fill_window();  // the attached reader is now the slowest of the remaining ones
  read_on(attached.answer, read);
  while (!resumed) loop.run_once(kNsPerS);
  leader.fill.finish();
  read_on(attached.answer, read);
  EXPECT_TRUE(read == sent) << "the others have all of it";
  EXPECT_EQ(read_all(*decision.answer, BodyStep::error), "") << "what it needs is gone";
}

TEST_F(AttachingLaggards, OneThatSipsIsGivenUpTooAndOneAmongEquallySlowOnesIsNot) {
  decision.answer->body.on_ready([] {});
  attached.answer.body.on_ready([] {});
  fill_window();
  bool later = false;
  Timer several(loop, [&later] { later = true; });
  several.arm_after_ms(200);
  while (!later) loop.run_once(kNsPerS);
  EXPECT_FALSE(resumed) << "nobody waits for anybody else";
  std::string read;
  while (given_up() == 0) {  // the leader's client reads one piece at a time, the other reads everything
    Slice slice;
    ASSERT_EQ(decision.answer->body.next(slice), BodyStep::data);
    read_on(attached.answer, read);
    ASSERT_LT(sent.size(), 3 * kWindowBytes);
    while (!resumed) loop.run_once(kNsPerS);
    fill_window();
  }
  read_on(attached.answer, read);
  leader.fill.finish();
  read_on(attached.answer, read);
  EXPECT_TRUE(read == sent);
  EXPECT_EQ(given_up(), 1);
}

}  // namespace tidegate::cache::attach_test
