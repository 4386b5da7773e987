// SPDX-License-Identifier: Apache-2.0
#include "control/health/plane_judge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/limits.h"
#include "core/clock.h"

namespace tidegate::plane_judge_test {

using Kind = PlaneAnswer::Kind;
using ::testing::HasSubstr;

constexpr uint64_t ms(uint64_t count) { return count * kNsPerMs; }

class PlaneJudgeTest : public ::testing::Test {
 protected:
  bool observe(Kind kind, uint64_t at_ms, uint64_t version = 7, uint64_t words = 1, std::string why = {}) {
    return judge.observe({kind, version, words, std::move(why)}, head, ms(at_ms));
  }
  std::string state() const {
    if (!judge.verdict()) return "none";
    return judge.verdict()->up ? "up" : judge.verdict()->drains ? "draining" : "down";
  }

  StateHead head{7, 1, 0};
  PlaneJudge judge{0};
};

TEST_F(PlaneJudgeTest, AProcessThatIsGoneIsDownAtOnceAndUpAgainWhenItAnswers) {
  EXPECT_TRUE(observe(Kind::up, 0));
  EXPECT_TRUE(observe(Kind::gone, 100));
  EXPECT_EQ(state(), "down");
  EXPECT_EQ(judge.verdict()->reason, "its process is gone");
  EXPECT_FALSE(observe(Kind::gone, 200)) << "nothing new";
  EXPECT_TRUE(observe(Kind::up, 300));
  EXPECT_EQ(state(), "up");
}

TEST_F(PlaneJudgeTest, SaysNothingOfAPlaneThatMayStillStart) {
  for (uint64_t at = 0; at < kPlaneStartMs; at += 100) EXPECT_FALSE(observe(Kind::gone, at));
  EXPECT_EQ(state(), "none");
  EXPECT_TRUE(observe(Kind::gone, kPlaneStartMs));
  EXPECT_EQ(state(), "down");
}

TEST_F(PlaneJudgeTest, WhatControlCouldNotAskChangesNothing) {
  EXPECT_TRUE(observe(Kind::up, 0));
  EXPECT_FALSE(observe(Kind::unknown, 100));
  EXPECT_EQ(state(), "up");
}

TEST_F(PlaneJudgeTest, TakesThePlanesOwnWord) {
  observe(Kind::up, 0);
  EXPECT_TRUE(observe(Kind::draining, 100, 7, 1, "it is ending"));
  EXPECT_EQ(state(), "draining");
  EXPECT_TRUE(observe(Kind::down, 200, 7, 1, "port eth0: no link"));
  EXPECT_EQ(state(), "down");
  EXPECT_EQ(judge.verdict()->reason, "port eth0: no link");
  EXPECT_TRUE(observe(Kind::silent, 300) == false) << "it is down already";
}

TEST_F(PlaneJudgeTest, APlaneThatLagsGetsNoNewWorkUntilItHasCaughtUp) {
  observe(Kind::up, 0);
  head.live_state = 9;
  EXPECT_FALSE(observe(Kind::up, 100, 7, 1));
  EXPECT_FALSE(observe(Kind::up, 100 + kPlaneLagMs - 1, 7, 8));
  EXPECT_TRUE(observe(Kind::up, 100 + kPlaneLagMs, 7, 8));
  EXPECT_EQ(state(), "draining");
  EXPECT_THAT(judge.verdict()->reason, HasSubstr("has not applied words 9"));
  EXPECT_TRUE(observe(Kind::up, 200 + kPlaneLagMs, 7, 9));
  EXPECT_EQ(state(), "up");
}

// The twin: a plane that applies each change late, but never later than allowed.
TEST_F(PlaneJudgeTest, APlaneThatFollowsABusyStateDoesNotLag) {
  for (uint64_t at = 0; at < 10 * kPlaneLagMs; at += 100) {
    head.live_state = 10 + at / 100;
    observe(Kind::up, at, 7, head.live_state - 5);
    EXPECT_EQ(state(), "up") << at;
  }
}

TEST_F(PlaneJudgeTest, AReasonHasABound) {
  observe(Kind::up, 0);
  observe(Kind::down, 100, 7, 1, std::string(10'000, 'x'));
  EXPECT_EQ(judge.verdict()->reason.size(), kPlaneReasonBytes);
}

TEST(ReturnGuard, WaitsLongerWithEachFailureAndForgetsThem) {
  ReturnGuard guard;
  uint64_t now = ms(1'000);
  std::vector<uint64_t> waits;
  for (int i = 0; i < 8; ++i) {
    guard.on_worse(now);
    uint64_t wait = 0;
    while (!guard.may_return(now + ms(wait))) wait += 100;
    waits.push_back(wait);
    now += ms(wait);
  }
  EXPECT_THAT(waits, ::testing::ElementsAre(500, 1'000, 2'000, 4'000, 8'000, 8'000, 8'000, 8'000));
  now += ms(kPlaneLongestWaitMs + kPlaneCalmMs + 1);
  guard.on_worse(now);
  EXPECT_TRUE(guard.may_return(now + ms(kPlaneFirstWaitMs)));
}

// A plane that flaps as fast as it is asked. The waits bound the number of writes.
TEST(ReturnGuard, BoundsWhatAFlapWrites) {
  ReturnGuard guard;
  bool up = true;
  int writes = 0;
  for (uint64_t at = 1; at < 60'000; at += 100) {
    const bool well = at / 100 % 2 == 0;
    if (up && !well) guard.on_worse(ms(at)), up = false, ++writes;
    if (!up && well && guard.may_return(ms(at))) up = true, ++writes;
  }
  EXPECT_GT(writes, 10);
  EXPECT_LE(writes, 24);
}

class HostHearingTest : public ::testing::Test {
 protected:
  void probes(int successes, int failures) {
    for (int i = 0; i < successes; ++i) hearing.on_probe("l4", true, "");
    for (int i = 0; i < failures; ++i) hearing.on_probe("l4", false, "192.0.2.1:443: connect refused");
  }
  HostHearing hearing{0};
};

TEST_F(HostHearingTest, SilenceAloneDecidesNothing) {
  EXPECT_FALSE(hearing.wants_probes(ms(kHostProbedAfterMs)));
  EXPECT_TRUE(hearing.wants_probes(ms(kHostProbedAfterMs + 1)));
  EXPECT_TRUE(hearing.is_silent(ms(kHostSilentMs + 1)));
  EXPECT_EQ(hearing.verdict("l4"), std::nullopt);
}

TEST_F(HostHearingTest, TwoFailuresInARowTakeItDownAndOneDoesNot) {
  probes(0, 1);
  EXPECT_FALSE(hearing.verdict("l4"));
  probes(1, 1);
  EXPECT_FALSE(hearing.verdict("l4")) << "not in a row";
  probes(0, 1);
  ASSERT_TRUE(hearing.verdict("l4"));
  EXPECT_FALSE(hearing.verdict("l4")->up);
  EXPECT_THAT(hearing.verdict("l4")->reason, HasSubstr("its host is silent"));
  EXPECT_FALSE(hearing.verdict("l7")) << "nothing was asked of it";
}

TEST_F(HostHearingTest, ClientsThatAreServedKeepItUp) {
  probes(2, 0);
  ASSERT_TRUE(hearing.verdict("l4"));
  EXPECT_TRUE(hearing.verdict("l4")->up);
}

TEST_F(HostHearingTest, AReportEndsTheSilence) {
  probes(0, 2);
  hearing.on_heard(ms(5'000));
  EXPECT_FALSE(hearing.is_silent(ms(5'001)));
  EXPECT_FALSE(hearing.verdict("l4")) << "what was probed before is forgotten";
}

TEST_F(HostHearingTest, TimeInWhichControlDidNotRunIsNotSilence) {
  hearing.on_pause(ms(10'000));
  EXPECT_FALSE(hearing.is_silent(ms(11'000)));
}

}  // namespace tidegate::plane_judge_test
