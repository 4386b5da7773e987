// SPDX-License-Identifier: Apache-2.0
#include "control/api/auth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tidegate::auth_test {

using ::testing::HasSubstr;

TEST(Tokens, ReadsRolesNamesAndComments) {
  const Result<Tokens> tokens =
      Tokens::parse("# the fleet\nadmin 0123456789abcdef boss\n\nviewer fedcba9876543210 # a screen\n", "t");
  ASSERT_TRUE(tokens) << tokens.error().message;
  ASSERT_NE(tokens->find("0123456789abcdef"), nullptr);
  EXPECT_EQ(tokens->find("0123456789abcdef")->role, Role::admin);
  EXPECT_EQ(tokens->find("0123456789abcdef")->name, "boss");
  EXPECT_EQ(tokens->find("fedcba9876543210")->name, "viewer");
  EXPECT_EQ(tokens->find("0123456789abcde"), nullptr);
  EXPECT_EQ(tokens->find(""), nullptr);
}

TEST(Tokens, RefusesWithTheLine) {
  const auto refusal = [](const char* text) {
    const Result<Tokens> tokens = Tokens::parse(text, "tokens");
    return tokens ? std::string() : tokens.error().message;
  };
  EXPECT_THAT(refusal("\nroot 0123456789abcdef\n"), HasSubstr("tokens:2: unknown role"));
  EXPECT_THAT(refusal("admin short\n"), HasSubstr("at least 16"));
  EXPECT_THAT(refusal("admin\n"), HasSubstr("tokens:1"));
  EXPECT_THAT(refusal("admin 0123456789abcdef a b\n"), HasSubstr("more than three"));
  EXPECT_THAT(refusal("admin 0123456789abcdef\nviewer 0123456789abcdef\n"), HasSubstr("tokens:2: the same token"));
  EXPECT_THAT(refusal("admin 0123456789abcd\xc3\xa9\n"), HasSubstr("visible ASCII"));
}

TEST(Tokens, EachHasAKeySpaceOfItsOwnThatHidesTheToken) {
  const Result<Tokens> tokens = Tokens::parse(
      "operator 0123456789abcdef\noperator fedcba9876543210\nadmin aaaaaaaaaaaaaaaa boss\nviewer bbbbbbbbbbbbbbbb "
      "boss\n"
      "publisher cccccccccccccccc release\n",
      "t");
  ASSERT_TRUE(tokens) << tokens.error().message;
  const Principal& first = *tokens->find("0123456789abcdef");
  const Principal& second = *tokens->find("fedcba9876543210");
  EXPECT_EQ(first.name, second.name);
  EXPECT_NE(first.key_space, second.key_space);
  EXPECT_EQ(first.key_space.find("0123456789abcdef"), std::string::npos);
  EXPECT_NE(first.key_space, sha256_hex("0123456789abcdef"));
  EXPECT_TRUE(first.shares_name && second.shares_name);
  EXPECT_TRUE(tokens->find("aaaaaaaaaaaaaaaa")->shares_name) << "named alike by hand";
  EXPECT_FALSE(tokens->find("cccccccccccccccc")->shares_name);
}

TEST(Tokens, NoTokenIsNamedAsAUserOfTheSocketIs) {
  const Result<Tokens> tokens = Tokens::parse("admin 0123456789abcdef uid:0\n", "tokens");
  ASSERT_FALSE(tokens);
  EXPECT_THAT(tokens.error().message, HasSubstr("tokens:1: a name that begins with uid:"));
}

TEST(Roles, EachGrantsWhatItsRankSaysAndReplicaStandsAside) {
  EXPECT_TRUE(allows(Role::publisher, Role::operator_));
  EXPECT_FALSE(allows(Role::operator_, Role::publisher));
  EXPECT_TRUE(allows(Role::replica, Role::viewer));
  EXPECT_FALSE(allows(Role::replica, Role::operator_));
  EXPECT_FALSE(allows(Role::publisher, Role::replica));
  EXPECT_TRUE(allows(Role::admin, Role::replica));
  EXPECT_FALSE(allows(Role::none, Role::viewer));
}

HttpRequest over_tcp(const std::string& authorization) {
  HttpRequest request;
  request.peer = Endpoint::parse("192.0.2.1:5000");
  if (!authorization.empty()) request.headers.emplace_back("authorization", authorization);
  return request;
}

TEST(Auth, ABearerTokenNamesItsPrincipalOverTcp) {
  const Auth auth(*Tokens::parse("operator 0123456789abcdef ops\n", "t"), 1000);
  EXPECT_EQ(auth.identify(over_tcp("Bearer 0123456789abcdef"))->name, "ops");
  EXPECT_EQ(auth.identify(over_tcp("bearer  0123456789abcdef"))->role, Role::operator_);
  EXPECT_FALSE(auth.identify(over_tcp("Bearer 0123456789abcdeX")));
  EXPECT_FALSE(auth.identify(over_tcp("Basic 0123456789abcdef")));
  EXPECT_FALSE(auth.identify(over_tcp("")));
}

TEST(Auth, OnTheUnixSocketRootAndOurUserAreAdminAndOthersMayRead) {
  const Auth auth(Tokens(), 1000);
  HttpRequest request;
  request.peer_uid = 0;
  EXPECT_EQ(auth.identify(request)->role, Role::admin);
  EXPECT_EQ(auth.identify(request)->name, "uid:0");
  request.peer_uid = 1000;
  EXPECT_EQ(auth.identify(request)->role, Role::admin);
  request.peer_uid = 1001;
  EXPECT_EQ(auth.identify(request)->role, Role::viewer);
}

}  // namespace tidegate::auth_test
