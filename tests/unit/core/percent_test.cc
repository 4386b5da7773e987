// SPDX-License-Identifier: Apache-2.0
#include "core/percent.h"

#include <gtest/gtest.h>

namespace tidegate::percent_test {

TEST(Percent, EncodesAllButUnreservedCharacters) {
  EXPECT_EQ(percent_encode("aZ09-._~"), "aZ09-._~");
  EXPECT_EQ(percent_encode("a b/%\xff"), "a%20b%2F%25%FF");
}

TEST(Percent, DecodesWholeEscapesOnly) {
  EXPECT_EQ(percent_decode("a+b%2F%ff", false), "a+b/\xff");
  EXPECT_EQ(percent_decode("a+b", true), "a b");
  for (const char* malformed : {"%", "%4", "%g0", "%0g", "a%"})
    EXPECT_FALSE(percent_decode(malformed, false)) << malformed;
}

TEST(Percent, DecodesWhatItEncoded) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  EXPECT_EQ(percent_decode(percent_encode(all), true), all);
}

TEST(Percent, KnowsHexDigitsOfEitherCase) {
  EXPECT_EQ(hex_digit('0'), 0);
  EXPECT_EQ(hex_digit('f'), 15);
  EXPECT_EQ(hex_digit('A'), 10);
  for (const char none : {'g', 'G', '/', ':', '@', '`', '\x10', '\x19', '\xe1'})
    EXPECT_EQ(hex_digit(none), -1) << int{none};
}

}  // namespace tidegate::percent_test
