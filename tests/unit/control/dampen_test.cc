// SPDX-License-Identifier: Apache-2.0
#include "control/health/dampen.h"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace tidegate::dampen_test {

TEST(Dampen, TheFirstResultDecidesAtOnce) {
  Dampener dampener;
  EXPECT_TRUE(observe(dampener, false, 5, 5));
  EXPECT_EQ(dampener.up, false);
}

TEST(Dampen, OneFailureAmongSuccessesChangesNothing) {
  Dampener dampener{true, 0};
  for (const bool success : {true, false, true, false, true}) EXPECT_FALSE(observe(dampener, success, 2, 2));
  EXPECT_EQ(dampener.up, true);
}

TEST(Dampen, TheVerdictOfBeforeStandsUntilItIsContradictedOftenEnough) {
  Dampener dampener{true, 0};
  EXPECT_FALSE(observe(dampener, false, 2, 3));
  EXPECT_FALSE(observe(dampener, false, 2, 3));
  EXPECT_TRUE(observe(dampener, false, 2, 3));
  EXPECT_FALSE(observe(dampener, true, 2, 3));
  EXPECT_TRUE(observe(dampener, true, 2, 3));
  EXPECT_EQ(dampener.up, true);
}

TEST(Dampen, AVerdictThatIsHeldCountsOnAndChangesAtTheFirstResultAfterwards) {
  Dampener dampener{true, 0};
  for (int i = 0; i < 5; ++i) EXPECT_FALSE(observe(dampener, false, 2, 3, true));
  EXPECT_EQ(dampener.up, true);
  EXPECT_TRUE(observe(dampener, false, 2, 3)) << "five failures are enough";
  EXPECT_FALSE(observe(dampener, true, 2, 3, true));
  EXPECT_FALSE(observe(dampener, false, 2, 3, true)) << "the run is broken";
  EXPECT_FALSE(observe(dampener, true, 2, 3));
  EXPECT_TRUE(observe(dampener, true, 2, 3));
}

// The naive twin: it looks at the whole history each time.
std::optional<bool> verdict_of(const std::vector<bool>& results, uint32_t rise, uint32_t fall) {
  std::optional<bool> up;
  for (size_t i = 0; i < results.size(); ++i) {
    if (!up) {
      up = results[i];
      continue;
    }
    const uint32_t needed = results[i] ? rise : fall;
    uint32_t run = 0;
    for (size_t k = i + 1; k-- > 0 && results[k] == results[i];) ++run;
    if (results[i] != *up && run >= needed) up = results[i];
  }
  return up;
}

TEST(Dampen, AgreesWithATwinThatReadsTheWholeHistory) {
  std::minstd_rand random(7);
  for (int round = 0; round < 200; ++round) {
    const uint32_t rise = 1 + random() % 4, fall = 1 + random() % 4;
    Dampener dampener;
    std::vector<bool> history;
    for (int step = 0; step < 60; ++step) {
      history.push_back(random() % 3 != 0);
      const std::optional<bool> before = dampener.up;
      const bool changed = observe(dampener, history.back(), rise, fall);
      ASSERT_EQ(dampener.up, verdict_of(history, rise, fall));
      ASSERT_EQ(changed, before != dampener.up);
    }
  }
}

}  // namespace tidegate::dampen_test
