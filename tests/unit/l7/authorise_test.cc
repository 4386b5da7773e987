// SPDX-License-Identifier: Apache-2.0
// What clients may do: by role, claim and network, and a limit by identity.
#include <gtest/gtest.h>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/policy/authorise.h"
#include "conf/policy/limit.h"
#include "tests/unit/l7/authenticated_edge.h"
#include "tests/unit/l7/token_signer.h"

namespace tidegate::l7::test::authorise_test {

class AuthoriseTest : public AuthenticatedEdge {};

TEST_F(AuthoriseTest, RolesDecideByMethod) {
  add_keys();
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{{"GET"}, {"reader", "writer"}, {}}, {{"PUT"}, {"writer"}, {}}};
  edge_.model.policies.push_back({"roles", true, {{"authorise", authorise}}});
  start();
  const auto status = [&](const std::string& method, const std::string& key) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(method + " /x HTTP/1.1\r\nHost: a\r\nX-API-Key: " + key + "\r\n\r\n");
    return read_answer(wire, true).status;
  };
  EXPECT_EQ(status("GET", "open sesame"), 200);
  EXPECT_EQ(status("HEAD", "open sesame"), 200);
  EXPECT_EQ(status("PUT", "open sesame"), 403);
  EXPECT_EQ(status("PUT", "xyzzy"), 200);
  EXPECT_EQ(status("DELETE", "xyzzy"), 403);
  EXPECT_EQ(status("GET", "wrong"), 401) << "who it is comes first, wherever the policies are bound";
  EXPECT_EQ(with("", "/none").status, 403) << "everywhere: nobody is known there";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"forbidden\"}"), 3u);
}

// Default deny: a new route without a policy is closed for everybody.
TEST_F(AuthoriseTest, AListenerThatAsksForAnIdentityRefusesRoutesThatKnowNobody) {
  add_keys();
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{}};
  edge_.model.policies.push_back({"known-only", false, {{"authorise", authorise}}});
  edge_.model.listeners[0].policies = {0};
  edge_.add_fixed("/forgotten", 204);
  start();
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n", "/forgotten").status, 403);
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 200);
  EXPECT_EQ(with("").status, 401);
  EXPECT_EQ(with("", "/nowhere").status, 403) << "nor does it tell which paths there are";
}

TEST_F(AuthoriseTest, ClaimsDecideBesideRoles) {
  const KeyPair pair = KeyPair::make("oct");
  add_keys();
  part_->jwt = rules_of({"HS256"});
  part_->jwt.keys.bytes = std::make_shared<const std::string>(set_of({pair.jwk()}));
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{{"GET"}, {"reader"}, {{"org.department", {"sales", "ops"}}, {"plan", {"gold"}}}}};
  edge_.model.policies.push_back({"claims", true, {{"authorise", authorise}}});
  start();
  const auto status = [&](nlohmann::json claims) {
    claims["sub"] = "amy";
    if (!claims.contains("roles")) claims["roles"] = {"reader"};
    return with("Authorization: Bearer " + pair.token("HS256", claims) + "\r\n").status;
  };
  EXPECT_EQ(status({{"org", {{"department", "ops"}}}, {"plan", {"free", "gold"}}}), 200);
  EXPECT_EQ(status({{"org", {{"department", "ops"}}}, {"plan", "free"}}), 403);
  EXPECT_EQ(status({{"org", {{"department", "it"}}}, {"plan", "gold"}}), 403);
  EXPECT_EQ(status({{"plan", "gold"}}), 403);
  EXPECT_EQ(status({{"org", {{"department", "ops"}}}, {"plan", "gold"}, {"roles", {"writer"}}}), 403);
  EXPECT_EQ(with("X-API-Key: open sesame\r\n").status, 403) << "a key has no claims";
}

TEST_F(AuthoriseTest, NetworksDecideByTheLongest) {
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->allow = {*Cidr::parse("192.0.2.0/24"), *Cidr::parse("2001:db8::/32")};
  authorise->deny = {*Cidr::parse("192.0.2.128/25"), *Cidr::parse("2001:db8::/32")};
  edge_.model.policies.push_back({"net", true, {{"authorise", authorise}}});
  edge_.add_fixed("/x", 204);
  edge_.start();
  const auto status = [&](const std::string& client) { return with("X-Forwarded-For: " + client + "\r\n").status; };
  EXPECT_EQ(status("192.0.2.1"), 204);
  EXPECT_EQ(status("192.0.2.129"), 403);
  EXPECT_EQ(status("198.51.100.1"), 403);
  EXPECT_EQ(status("2001:db8::1"), 403) << "deny wins a tie";
}

TEST_F(AuthoriseTest, ALimitByIdentityFollowsTheClientNotItsAddress) {
  add_keys();
  auto limit = std::make_shared<LimitPolicy>();
  limit->requests = 1;
  limit->per_ms = 3'600'000;
  limit->by = {"identity"};
  edge_.model.policies.push_back({"each", true, {{"limit", limit}}});
  start();
  EXPECT_EQ(with("X-API-Key: wrong\r\n").status, 401);
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 200);
  EXPECT_EQ(with("X-API-Key: xyzzy\r\n").status, 429);
  EXPECT_EQ(with("X-API-Key: open sesame\r\n").status, 200);
}

}  // namespace tidegate::l7::test::authorise_test
