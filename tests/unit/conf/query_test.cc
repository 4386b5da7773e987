// SPDX-License-Identifier: Apache-2.0
// Checks a query against the parameters that a path accepts.
#include "conf/query.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidegate::query_test {

using ::testing::HasSubstr;

const std::vector<QueryParameter> kKnown = {
    QueryParameter::boolean("dry_run", ""),
    QueryParameter::number("limit", "", 1, 1000),
    QueryParameter::number("version", ""),
    QueryParameter::address("client", ""),
    {"comment", ""},
};

std::string code_of(std::string_view query) {
  const std::optional<QueryFault> fault = check_query(query, kKnown);
  return fault ? fault->code : "";
}

TEST(Query, TakesWhatTheTableNames) {
  for (const char* query : {"", "&", "dry_run=true", "dry_run=false&limit=1", "limit=1000", "version=0", "version=007",
                            "version=18446744073709551615", "client=192.0.2.1", "client=2001%3Adb8::1",
                            "comment=", "comment", "comment=a=b", "comment=x%20y+z", "%64ry_run=true", "&&limit=5&"}) {
    EXPECT_EQ(code_of(query), "") << query;
  }
}

TEST(Query, ABooleanIsTrueOrFalseAndNothingElse) {
  for (const char* value :
       {"", "=", "=TRUE", "=True", "=maybe", "=1", "=0", "=yes", "=true%20", "=+true", "=true%00"}) {
    EXPECT_EQ(code_of(std::string("dry_run") + value), "bad_parameter") << value;
  }
}

TEST(Query, ANumberIsDecimalWithinItsBounds) {
  for (const char* value : {"", "10x", "x", "-1", "%2B1", "1.0", "0x10", "0", "1001", " 1", "99999999999999999999"}) {
    EXPECT_EQ(code_of(std::string("limit=") + value), "bad_parameter") << value;
  }
  EXPECT_EQ(code_of("version=18446744073709551616"), "bad_parameter");
}

TEST(Query, AnAddressIsAnAddress) {
  for (const char* value : {"", "nobody", "192.0.2.1:80", "192.0.2.256", "[::1]"}) {
    EXPECT_EQ(code_of(std::string("client=") + value), "bad_parameter") << value;
  }
}

TEST(Query, AParameterStandsOnceHoweverItIsSpelt) {
  EXPECT_EQ(code_of("dry_run=true&dry_run=true"), "repeated_parameter");
  EXPECT_EQ(code_of("dry_run=true&%64ry_run=false"), "repeated_parameter");
}

TEST(Query, BrokenEscapesAreRefused) {
  EXPECT_EQ(code_of("comment=%4"), "bad_parameter");
  EXPECT_EQ(code_of("com%zzment=x"), "bad_parameter");
}

TEST(Query, AFaultNamesParameterWhatWasGivenAndWhatIsExpected) {
  const std::optional<QueryFault> fault = check_query("limit=10x", kKnown);
  ASSERT_TRUE(fault);
  EXPECT_EQ(fault->parameter, "limit");
  EXPECT_EQ(fault->given, "10x");
  EXPECT_EQ(fault->expected, "a whole number from 1 to 1000");
  EXPECT_EQ(fault->detail, "limit: '10x' was given, a whole number from 1 to 1000 is expected");
}

TEST(Query, AnUnknownParameterGetsTheNearestKnownOne) {
  const std::optional<QueryFault> fault = check_query("dryrun=true", kKnown);
  ASSERT_TRUE(fault);
  EXPECT_STREQ(fault->code, "unknown_parameter");
  EXPECT_THAT(fault->detail, HasSubstr("did you mean 'dry_run'?"));
  EXPECT_THAT(check_query("x=1", {})->detail, HasSubstr("expected: no parameter"));
}

}  // namespace tidegate::query_test
