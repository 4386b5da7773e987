// SPDX-License-Identifier: Apache-2.0
#include "conf/names.h"

#include <gtest/gtest.h>

namespace tidegate::names_test {

TEST(EditDistance, CountsASwapOfNeighboursAsOne) {
  EXPECT_EQ(edit_distance("weight", "wieght", 3), 1U);
  EXPECT_EQ(edit_distance("weight", "weigh", 3), 1U);
  EXPECT_EQ(edit_distance("weight", "wweight", 3), 1U);
  EXPECT_EQ(edit_distance("kitten", "sitting", 3), 3U);
  EXPECT_EQ(edit_distance("", "abc", 3), 3U);
  EXPECT_EQ(edit_distance("same", "same", 3), 0U);
}

TEST(EditDistance, StopsAtTheLimit) {
  EXPECT_EQ(edit_distance("abcdef", "uvwxyz", 2), 3U);
  EXPECT_EQ(edit_distance("a", "abcdefgh", 2), 3U);
}

TEST(DidYouMean, NamesTheNearestAndNothingFar) {
  EXPECT_EQ(did_you_mean("wieght", {"name", "weight", "node"}), "did you mean 'weight'?");
  EXPECT_EQ(did_you_mean("PORT", {"port", "path"}), "did you mean 'port'?");
  EXPECT_EQ(did_you_mean("orgin1", {"origin2", "origin1"}), "did you mean 'origin1'?");
  EXPECT_EQ(did_you_mean("banana", {"weight", "port"}), "");
  EXPECT_EQ(did_you_mean("", {"a"}), "");
}

TEST(InQuotes, KeepsSentencesShortAndPrintable) {
  EXPECT_EQ(in_quotes("a\nb\x01"), "'a\\nb\\x01'");
  EXPECT_EQ(in_quotes(std::string(200, 'x')), "'" + std::string(64, 'x') + "…'");
}

}  // namespace tidegate::names_test
