// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/patience.h"

#include <gtest/gtest.h>

namespace tidegate::l7::patience_test {

constexpr PatienceTerms kTerms{60 * kNsPerS, 256};

TEST(PatienceTest, OneThatKeepsToTheRateNeverRunsOut) {
  Patience patience;
  uint64_t end_ns = patience.wait(kTerms, 0);
  for (uint64_t s = 10; s < 10'000; s += 10) {
    ASSERT_GT(end_ns, s * kNsPerS);
    end_ns = patience.renew(kTerms, s * 256, s * kNsPerS);
  }
  EXPECT_FALSE(patience.trickles());
}

TEST(PatienceTest, OneThatMovesLessRunsOutLaterThanOneThatMovesNothing) {
  Patience silent, trickle;
  EXPECT_EQ(silent.wait(kTerms, 0), 60 * kNsPerS);
  EXPECT_EQ(silent.renew(kTerms, 0, 60 * kNsPerS), 60 * kNsPerS);
  EXPECT_FALSE(silent.trickles());
  uint64_t s = 0;
  while (trickle.renew(kTerms, s * 128, s * kNsPerS) > s * kNsPerS) ASSERT_LT(++s, 200U);
  EXPECT_GT(s, 100U);  // half of the rate: half of the spent time is restored
  EXPECT_TRUE(trickle.trickles());
}

TEST(PatienceTest, WhatSomebodyElseTakesCostsNothingAndAPauseRestoresNothing) {
  Patience patience;
  patience.wait(kTerms, 0);
  patience.pause(20 * kNsPerS);
  EXPECT_EQ(patience.wait(kTerms, 1000 * kNsPerS), 1040 * kNsPerS);
}

TEST(PatienceTest, WithoutARateAnyByteRestoresTheWhole) {
  constexpr PatienceTerms terms{60 * kNsPerS, 0};
  Patience patience;
  patience.wait(terms, 0);
  EXPECT_EQ(patience.renew(terms, 1, 59 * kNsPerS), 119 * kNsPerS);
  EXPECT_EQ(patience.renew(terms, 1, 119 * kNsPerS), 119 * kNsPerS);
}

}  // namespace tidegate::l7::patience_test
