// SPDX-License-Identifier: Apache-2.0
#include "core/assert.h"

#include <gtest/gtest.h>

namespace tidegate::assert_test {

TEST(Assert, LetsWhatHoldsPass) {
  int evaluated = 0;
  TIDEGATE_ASSERT(++evaluated == 1, "evaluated once");
  EXPECT_EQ(evaluated, 1);
}

TEST(AssertDeathTest, EndsTheProcessAndSaysWhereAndWhy) {
  const int bytes = 70'000;
  EXPECT_DEATH(TIDEGATE_ASSERT(bytes <= 65'535, "a message fits its length field"),
               "assert_test.cc:[0-9]+: a message fits its length field \\(bytes <= 65'535\\)");
  EXPECT_DEATH(TIDEGATE_UNREACHABLE("every step has a successor"), "every step has a successor \\(unreachable\\)");
}

}  // namespace tidegate::assert_test
