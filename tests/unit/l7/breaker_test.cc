// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/breaker.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "core/clock.h"

namespace tidegate::l7::breaker_test {

using State = Breaker::State;
using Result = Breaker::Result;
using Change = Breaker::Change;

class BreakerTest : public ::testing::Test {
 protected:
  Change one(Result result) {
    const Breaker::Permit permit = breaker_.ask(now_ns_, config_);
    EXPECT_TRUE(permit.granted);
    return breaker_.settle(permit, result, now_ns_, config_);
  }
  void pass_ms(uint64_t ms) { now_ns_ += ms * kNsPerMs; }
  void open() {
    config_.consecutive_failures = 1;
    ASSERT_EQ(one(Result::failed), Change::opened);
  }

  PoolBreaker config_{.enabled = true};
  uint64_t now_ns_ = 1'000 * kNsPerS;
  Breaker breaker_;
};

TEST_F(BreakerTest, OpensAtTheErrorRateAndNotBefore) {
  config_.minimum_requests = 10;
  config_.error_rate = 0.5;
  for (int i = 0; i < 5; ++i) EXPECT_EQ(one(Result::good), Change::none);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(one(Result::failed), Change::none) << i;
  EXPECT_EQ(one(Result::failed), Change::opened) << "5 of 10";
  EXPECT_EQ(breaker_.state(now_ns_), State::open);
  EXPECT_FALSE(breaker_.ask(now_ns_, config_).granted);
}

TEST_F(BreakerTest, FewRequestsSayNothing) {
  config_.minimum_requests = 10;
  for (int i = 0; i < 9; ++i) EXPECT_EQ(one(Result::failed), Change::none);
}

TEST_F(BreakerTest, WhatIsOlderThanTheWindowDoesNotCount) {
  config_.minimum_requests = 10;
  config_.window_ms = 1'000;
  for (int i = 0; i < 9; ++i) EXPECT_EQ(one(Result::failed), Change::none);
  pass_ms(1'100);
  EXPECT_EQ(one(Result::failed), Change::none);
  EXPECT_EQ(breaker_.counts(now_ns_, config_).requests, 1u);
}

TEST_F(BreakerTest, TheWindowSlides) {
  config_.minimum_requests = 10;
  config_.window_ms = 1'000;
  for (int i = 0; i < 5; ++i) one(Result::failed);
  pass_ms(500);
  for (int i = 0; i < 4; ++i) one(Result::failed);
  pass_ms(450);
  EXPECT_EQ(breaker_.counts(now_ns_, config_).failed, 9u);
  pass_ms(100);
  EXPECT_EQ(breaker_.counts(now_ns_, config_).failed, 4u);
}

TEST_F(BreakerTest, OpensWhenTooManyAnswersAreSlow) {
  config_.minimum_requests = 4;
  config_.slow_ms = 100;
  config_.slow_rate = 0.75;
  one(Result::good);
  one(Result::slow);
  one(Result::slow);
  EXPECT_EQ(one(Result::slow), Change::opened);
}

TEST_F(BreakerTest, OneSuccessEndsAnyRowOfFailures) {
  config_.error_rate = 0;
  config_.consecutive_failures = 3;
  one(Result::failed);
  one(Result::failed);
  one(Result::good);
  one(Result::failed);
  EXPECT_EQ(one(Result::failed), Change::none);
  EXPECT_EQ(one(Result::failed), Change::opened);
}

TEST_F(BreakerTest, LetsExactlyItsTrialsThroughAndClosesWhenAllGoWell) {
  config_.trials = 3;
  config_.open_ms = 500;
  open();
  pass_ms(499);
  EXPECT_FALSE(breaker_.ask(now_ns_, config_).granted);
  pass_ms(1);
  std::vector<Breaker::Permit> trials;
  for (int i = 0; i < 3; ++i) trials.push_back(breaker_.ask(now_ns_, config_));
  for (const Breaker::Permit& trial : trials) EXPECT_TRUE(trial.granted && trial.trial);
  EXPECT_FALSE(breaker_.would_grant(now_ns_, config_));
  EXPECT_FALSE(breaker_.ask(now_ns_, config_).granted);
  EXPECT_EQ(breaker_.settle(trials[0], Result::good, now_ns_, config_), Change::none);
  EXPECT_FALSE(breaker_.ask(now_ns_, config_).granted) << "a trial that went well is not given out again";
  EXPECT_EQ(breaker_.settle(trials[1], Result::good, now_ns_, config_), Change::none);
  EXPECT_EQ(breaker_.settle(trials[2], Result::good, now_ns_, config_), Change::closed);
  EXPECT_EQ(breaker_.state(now_ns_), State::closed);
  EXPECT_EQ(breaker_.counts(now_ns_, config_).requests, 0u) << "what was before is forgotten";
}

TEST_F(BreakerTest, ATrialThatFailsOrIsSlowOpensItAgain) {
  for (const Result result : {Result::failed, Result::slow}) {
    open();
    pass_ms(config_.open_ms);
    const Breaker::Permit trial = breaker_.ask(now_ns_, config_), other = breaker_.ask(now_ns_, config_);
    EXPECT_EQ(breaker_.settle(trial, result, now_ns_, config_), Change::opened);
    EXPECT_EQ(breaker_.state(now_ns_), State::open);
    EXPECT_EQ(breaker_.settle(other, Result::good, now_ns_, config_), Change::none) << "of a period that is over";
    pass_ms(config_.open_ms);
    config_.trials = 1;
    EXPECT_EQ(one(Result::good), Change::closed);
    config_.trials = 3;
  }
}

TEST_F(BreakerTest, ATrialThatTellsNothingIsGivenOutAgain) {
  config_.trials = 1;
  open();
  pass_ms(config_.open_ms);
  const Breaker::Permit trial = breaker_.ask(now_ns_, config_);
  EXPECT_FALSE(breaker_.ask(now_ns_, config_).granted);
  breaker_.forgo(trial);
  EXPECT_EQ(one(Result::good), Change::closed);
}

TEST_F(BreakerTest, RequestsFromBeforeItOpenedDoNotJudgeWhatComesAfter) {
  const Breaker::Permit early = breaker_.ask(now_ns_, config_);
  config_.trials = 1;
  open();
  EXPECT_EQ(breaker_.settle(early, Result::failed, now_ns_, config_), Change::none);
  pass_ms(config_.open_ms);
  EXPECT_EQ(one(Result::good), Change::closed);
  EXPECT_EQ(breaker_.settle(early, Result::failed, now_ns_, config_), Change::none);
  EXPECT_EQ(breaker_.state(now_ns_), State::closed);
}

TEST_F(BreakerTest, MoreThanAPartOfTheWindowCanCountKeepsItsRates) {
  config_.error_rate = 0.9;
  for (int i = 0; i < 200'000; ++i) one(i % 4 == 0 ? Result::failed : Result::good);
  const Breaker::Counts counts = breaker_.counts(now_ns_, config_);
  EXPECT_NEAR(static_cast<double>(counts.failed) / counts.requests, 0.25, 0.01);
}

// Every worker asks at once: exactly the configured number of trials is given out, and one caller is told of each
// change.
TEST_F(BreakerTest, ThreadsShareTheTrials) {
  config_.trials = 5;
  config_.consecutive_failures = 1;
  constexpr int kThreads = 4, kRounds = 200;
  for (int round = 0; round < kRounds; ++round) {
    open();
    pass_ms(config_.open_ms);
    std::atomic<int> granted{0}, closed{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        std::vector<Breaker::Permit> mine;
        for (int i = 0; i < 10; ++i) {
          const Breaker::Permit permit = breaker_.ask(now_ns_, config_);
          if (permit.trial) mine.push_back(permit);
        }
        granted += static_cast<int>(mine.size());
        for (const Breaker::Permit& permit : mine) {
          if (breaker_.settle(permit, Result::good, now_ns_, config_) == Change::closed) ++closed;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    ASSERT_EQ(granted, 5);
    ASSERT_EQ(closed, 1);
  }
}

}  // namespace tidegate::l7::breaker_test
