// SPDX-License-Identifier: Apache-2.0
#include "core/result.h"

#include <gtest/gtest.h>

#include <memory>

namespace tidegate::result_test {

Result<int> half(int n) {
  if (n % 2 != 0) return fail("odd");
  return n / 2;
}

TEST(Result, HoldsAValueOrASentence) {
  EXPECT_EQ(*half(4), 2);
  ASSERT_FALSE(half(3));
  EXPECT_EQ(half(3).error().message, "odd");
}

TEST(Result, CarriesMoveOnlyValuesOut) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
  const std::unique_ptr<int> value = *std::move(result);
  EXPECT_EQ(*value, 7);
}

TEST(Result, OfVoidIsFineUnlessItFailed) {
  EXPECT_TRUE(Result<void>());
  const Result<void> failed = fail("no");
  ASSERT_FALSE(failed);
  EXPECT_EQ(failed.error().message, "no");
}

TEST(Result, AStringValueIsNotAnError) {
  const Result<std::string> result(std::string("fine"));
  ASSERT_TRUE(result);
  EXPECT_EQ(*result, "fine");
}

TEST(ResultDeathTest, AskingAFailureForItsValueStops) { EXPECT_DEATH((void)half(3).value(), "has_value"); }

}  // namespace tidegate::result_test
