// SPDX-License-Identifier: Apache-2.0
// keep_credentials: false. What shows who a client is goes no further than the proxy, wherever it stands in a request.
#include <gtest/gtest.h>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/authenticate.h"
#include "core/crypto.h"
#include "l7/policy/credentials.h"
#include "l7/policy/good_tokens.h"
#include "l7/policy/jwt.h"
#include "tests/unit/allocations.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::credentials_test {

std::string hs256(const std::string& secret, const std::string& claims) {
  const std::string signed_part = base64url_encode(R"({"alg":"HS256"})") + "." + base64url_encode(claims);
  const Sha256 mac = hmac_sha256(secret, signed_part);
  return signed_part + "." + base64url_encode({reinterpret_cast<const char*>(mac.data()), mac.size()});
}

TEST(Credentials, ACookieIsTakenOutOfTheOthers) {
  const auto left = [](const std::string& cookies) {
    Arena arena;
    FieldList fields;
    fields.add({"cookie", cookies, FieldKind::cookie});
    policy::remove_cookie(fields, "tok", arena);
    return fields.size() == 0 ? "(no field)" : std::string(fields.begin()->value);
  };
  EXPECT_EQ(left("tok=secret"), "(no field)");
  EXPECT_EQ(left("a=1; tok=secret; b=2"), "a=1; b=2");
  EXPECT_EQ(left("tok=secret;a=1;tok=again"), "a=1");
  EXPECT_EQ(left("tokens=1; xtok=2;tok"), "tokens=1; xtok=2;tok") << "others have such names too";
  EXPECT_EQ(left("a=tok=1"), "a=tok=1");
  EXPECT_EQ(left(""), "");
}

TEST(Credentials, AParameterIsTakenOutOfTheQuery) {
  Arena arena;
  const auto left = [&](std::string_view query) { return policy::query_without(query, "key", arena); };
  EXPECT_EQ(left("key=secret"), "");
  EXPECT_EQ(left("a=1&key=secret&b=2&key=again"), "a=1&b=2");
  EXPECT_EQ(left("%6bey=secret&a=%20"), "a=%20") << "however it is encoded";
  EXPECT_EQ(left("keys=1&monkey=2&&a"), "keys=1&monkey=2&&a");
  EXPECT_EQ(left(""), "");
}

TEST(Credentials, ParametersDifferByWhatTheySay) {
  const auto differ = [](std::string_view query) { return policy::parameters_differ(query, "key"); };
  EXPECT_FALSE(differ(""));
  EXPECT_FALSE(differ("a=1&b=2&keys=3"));
  EXPECT_FALSE(differ("key=x"));
  EXPECT_FALSE(differ("key=x&a=1&%6bey=%78")) << "the same, encoded in another way";
  EXPECT_FALSE(differ("key=a+b&key=a%20b"));
  EXPECT_FALSE(differ("key&key="));
  EXPECT_TRUE(differ("key=x&key=y"));
  EXPECT_TRUE(differ("key=x&key=xy"));
  EXPECT_TRUE(differ("key=x&a=1&key")) << "one of them is empty";
  EXPECT_TRUE(differ("key=x&key=x&k%65y=y")) << "the third one";
  EXPECT_TRUE(differ("key=%zz&key=%yy")) << "a backend may read malformed escapes in its own way";
  EXPECT_TRUE(differ("key=%zz&key=x"));
}

TEST(Credentials, AParameterIsTheFirstOneDecoded) {
  Arena arena;
  const auto value = [&](std::string_view query) {
    return std::string(policy::parameter_of(query, "key", arena).value_or("(none)"));
  };
  EXPECT_EQ(value("a=1&key=x&key=y"), "x");
  EXPECT_EQ(value("k%65y=a+b%2Fc"), "a b/c");
  EXPECT_EQ(value("key"), "");
  EXPECT_EQ(value("keys=1&akey=2"), "(none)");
  EXPECT_EQ(value("key=%4"), "(none)");
  EXPECT_EQ(value("key=a%zzb"), "(none)");
  EXPECT_EQ(value("%zz=1&key=x"), "x");
}

// What is read of each request costs no allocation, however long it is.
TEST(Credentials, AreReadWithoutAnAllocation) {
  if (!tidegate::test::Allocations::can_count()) GTEST_SKIP() << "needs a sanitizer";
  const std::string name = "a-name-that-is-too-long-for-a-short-string", more(60, 'v');
  const std::string query =
      "first-parameter-of-the-query=" + more + "&" + name + "=" + more + "%20&" + name + "=" + more + "+";
  const std::string basic = base64_encode("amy:" + more);
  const std::string secret(32, 's');
  JwtRules rules;
  rules.enabled = true;
  rules.algorithms = {"HS256"};
  const auto good = std::make_shared<policy::GoodTokens>();
  const policy::TokenVerifier tokens(
      rules, *parse_jwks(R"({"keys":[{"kty":"oct","k":")" + base64url_encode(secret) + "\"}]}"), nullptr, good);
  const std::string token = hs256(secret, R"({"sub":"amy","aud":")" + more + R"(","roles":["reader","writer"]})");
  Arena arena;
  policy::TokenClaims claims;
  ASSERT_EQ(tokens.verify(token, 0, arena, claims), policy::TokenFault::none) << "its signature is computed once";
  arena.reset();
  const tidegate::test::Allocations allocations;
  EXPECT_FALSE(policy::parameters_differ(query, name));
  EXPECT_EQ(policy::parameter_of(query, name, arena)->size(), more.size() + 1);
  EXPECT_EQ(policy::query_without(query, name, arena).size(), query.find('&'));
  EXPECT_EQ(policy::read_basic(basic, arena)->password, more);
  policy::TokenClaims again;
  EXPECT_EQ(tokens.verify(token, 0, arena, again), policy::TokenFault::none);
  EXPECT_EQ(again.role_count, 2u);
  EXPECT_EQ(allocations.count(), 0u);
}

TEST(Credentials, AKeyInTheQueryStaysHereWhereTold) {
  Origin origin(Origin::says("x"));
  Edge edge;
  auto part = std::make_shared<AuthenticatePolicy>();
  part->api_keys.enabled = true;
  part->api_keys.query = "key";
  part->api_keys.keys = {{"amy", sha256_hex("xyzzy"), {}}};
  part->keep_credentials = false;
  edge.model.policies.push_back({"auth", true, {{"authenticate", part}}});
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/a?x=1&key=xyzzy&y=2")).status, 200);
  EXPECT_EQ(origin.last_head().find("GET /a?x=1&y=2 HTTP/1.1"), 0u) << origin.last_head();
  EXPECT_EQ(ask(edge.endpoint(), get("/a?key=xyzzy")).status, 200);
  EXPECT_EQ(origin.last_head().find("GET /a HTTP/1.1"), 0u) << origin.last_head();
  EXPECT_EQ(ask(edge.endpoint(), get("/a?key=wrong")).status, 401);
}

TEST(Credentials, ATokenInACookieStaysHereWhereTold) {
  Origin origin(Origin::says("x"));
  Edge edge;
  const std::string secret(32, 's');
  auto part = std::make_shared<AuthenticatePolicy>();
  part->jwt.enabled = true;
  part->jwt.algorithms = {"HS256"};
  part->jwt.cookie = "session";
  part->jwt.keys.bytes =
      std::make_shared<const std::string>(R"({"keys":[{"kty":"oct","k":")" + base64url_encode(secret) + "\"}]}");
  part->keep_credentials = false;
  edge.model.policies.push_back({"auth", true, {{"authenticate", part}}});
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  const std::string token = hs256(secret, R"({"sub":"amy"})");
  const auto shown = [&](const std::string& fields) {
    return ask(edge.endpoint(), get("/a", "a.test", fields)).status;
  };
  EXPECT_EQ(shown("Cookie: theme=dark; session=" + token + "\r\n"), 200);
  EXPECT_EQ(origin.last_head().find("session"), std::string::npos) << origin.last_head();
  EXPECT_NE(origin.last_head().find("theme=dark"), std::string::npos);
  EXPECT_EQ(shown("Authorization: Bearer " + token + "\r\nCookie: session=" + token + "\r\n"), 200);
  EXPECT_EQ(origin.last_head().find(token), std::string::npos) << "whichever was read: " << origin.last_head();
  EXPECT_EQ(shown("Cookie: session=wrong\r\n"), 401);
}

}  // namespace tidegate::l7::test::credentials_test
