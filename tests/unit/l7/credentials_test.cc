// SPDX-License-Identifier: Apache-2.0
// keep_credentials: false. What shows who a client is goes no further than the proxy, wherever it stands in a request.
#include <gtest/gtest.h>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/policy/authenticate.h"
#include "core/crypto.h"
#include "l7/policy/credentials.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::credentials_test {

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

std::string hs256(const std::string& secret, const std::string& claims) {
  const std::string signed_part = base64url_encode(R"({"alg":"HS256"})") + "." + base64url_encode(claims);
  const Sha256 mac = hmac_sha256(secret, signed_part);
  return signed_part + "." + base64url_encode({reinterpret_cast<const char*>(mac.data()), mac.size()});
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
