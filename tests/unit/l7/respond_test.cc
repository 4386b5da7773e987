// SPDX-License-Identifier: Apache-2.0
// The respond policy, as clients see it: fields of security, CORS, error pages, maintenance, mock answers.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/policy/limit.h"
#include "conf/policy/respond.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::respond_test {

class RespondTest : public ::testing::Test {
 protected:
  void start(const std::function<void(RespondPolicy&)>& set, std::string fields_of_backend = {}) {
    auto part = std::make_shared<RespondPolicy>();
    set(*part);
    Policy policy;
    policy.name = "web";
    policy.parts["respond"] = part;
    edge_.model.policies.push_back(policy);
    origin_.emplace([fields = std::move(fields_of_backend)](const std::string&, Wire& wire) {
      return wire.send(Origin::ok("x", fields));
    });
    Route& route = edge_.add_route("/x", edge_.add_pool("p", {origin_->endpoint()}));
    route.methods = {"GET", "PUT"};
    route.policies = {0};
    edge_.add_route("/*", 0);
    edge_.start();
  }
  Answer get_x(const std::string& fields = "") { return ask(edge_.endpoint(), get("/x", "a.test", fields)); }
  Answer preflight(const std::string& origin, const std::string& method, const std::string& more = "") {
    return ask(edge_.endpoint(), "OPTIONS /x HTTP/1.1\r\nHost: a\r\nOrigin: " + origin +
                                     "\r\nAccess-Control-Request-Method: " + method + "\r\n" + more + "\r\n");
  }
  uint64_t verdicts(const std::string& kind, const std::string& verdict) {
    return edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"web\",kind=\"" + kind + "\",verdict=\"" + verdict +
                        "\"}");
  }
  Edge edge_;
  std::optional<Origin> origin_;
};

void security(RespondPolicy& part) {
  part.security.enabled = true;
  part.security.hsts_s = 3'600;
  part.security.hsts_subdomains = true;
  part.security.content_security_policy = "default-src 'self'";
  part.security.frame_options = "DENY";
}

TEST_F(RespondTest, FieldsOfSecurityAreAddedWhereTheAnswerHasNone) {
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  start(security, "Content-Security-Policy: default-src https:\r\n");
  const Answer plain = get_x();
  EXPECT_EQ(plain.field("x-content-type-options"), "nosniff");
  EXPECT_EQ(plain.field("x-frame-options"), "deny");
  EXPECT_EQ(plain.field("content-security-policy"), "default-src https:") << "the page knows better";
  EXPECT_EQ(plain.head.find("content-security-policy"), plain.head.rfind("content-security-policy"));
  EXPECT_EQ(plain.field("strict-transport-security"), "") << "never in plain text";
  EXPECT_EQ(get_x("X-Forwarded-Proto: https\r\n").field("strict-transport-security"),
            "max-age=3600; includesubdomains");
}

TEST_F(RespondTest, FieldsOfSecurityAreOnAnswersToBadRequestsToo) {
  auto part = std::make_shared<RespondPolicy>();
  security(*part);
  edge_.model.policies.push_back({"web", true, {{"respond", part}}});
  edge_.start();
  EXPECT_EQ(ask(edge_.endpoint(), "GET /x HTTP/1.1\r\nHost: a\r\nbad name: 1\r\n\r\n").field("x-frame-options"),
            "deny");
  EXPECT_EQ(get_x().status, 404);
  EXPECT_EQ(get_x().field("x-frame-options"), "deny");
}

void cors(RespondPolicy& part) {
  part.cors.enabled = true;
  part.cors.origins = {"https://app.test", "https://*.shop.test"};
  part.cors.headers = {"X-One"};
  part.cors.expose = {"X-Told"};
  part.cors.credentials = true;
}

TEST_F(RespondTest, APreflightIsAnsweredForTheRouteOfItsRequest) {
  start(cors);
  const Answer answer = preflight("https://app.test", "PUT", "Access-Control-Request-Headers: x-one\r\n");
  EXPECT_EQ(answer.status, 204);
  EXPECT_EQ(answer.field("access-control-allow-origin"), "https://app.test");
  EXPECT_EQ(answer.field("access-control-allow-methods"), "put");
  EXPECT_EQ(answer.field("access-control-allow-headers"), "x-one");
  EXPECT_EQ(answer.field("access-control-allow-credentials"), "true");
  EXPECT_EQ(answer.field("access-control-max-age"), "600");
  EXPECT_NE(answer.field("vary").find("origin"), std::string::npos);
  EXPECT_EQ(origin_->requests(), 0u);
  EXPECT_EQ(verdicts("cors", "answered"), 1u);
  // OPTIONS without a preflight, and a preflight for a route without CORS, go to the backend.
  EXPECT_EQ(ask(edge_.endpoint(), "OPTIONS /x HTTP/1.1\r\nHost: a\r\n\r\n").status, 200);
  EXPECT_EQ(preflight("https://app.test", "DELETE").status, 200) << "the other route takes DELETE";
  EXPECT_EQ(origin_->requests(), 2u);
}

TEST_F(RespondTest, APreflightThatIsNotAllowedIsRefusedByName) {
  start(cors);
  for (const char* origin :
       {"https://evil.test", "http://app.test", "https://shop.test", "https://a.shop.test.evil.test",
        "https://evil.test/.shop.test", "null", "https://app.test:444"}) {
    const Answer answer = preflight(origin, "GET");
    EXPECT_EQ(answer.status, 403) << origin;
    EXPECT_EQ(answer.field("access-control-allow-origin"), "") << origin;
  }
  EXPECT_EQ(preflight("https://deep.a.shop.test", "GET").status, 204);
  EXPECT_EQ(preflight("https://app.test", "GET", "Access-Control-Request-Headers: x-one, x-two\r\n").status, 403);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"cors_refused\"}"), 8u);
}

TEST_F(RespondTest, AnswersNameTheOriginThatMayReadThemAndVaryByIt) {
  start(cors, "Access-Control-Allow-Origin: *\r\nVary: Accept\r\n");
  const Answer allowed = get_x("Origin: https://a.shop.test\r\n");
  EXPECT_EQ(allowed.status, 200);
  EXPECT_EQ(allowed.field("access-control-allow-origin"), "https://a.shop.test");
  EXPECT_EQ(allowed.field("access-control-expose-headers"), "x-told");
  EXPECT_NE(allowed.head.find("vary: origin"), std::string::npos);
  EXPECT_NE(allowed.head.find("vary: accept"), std::string::npos);
  const Answer other = get_x("Origin: https://evil.test\r\n");
  EXPECT_EQ(other.status, 200) << "CORS is for browsers";
  EXPECT_EQ(other.field("access-control-allow-origin"), "") << "the backend's own is replaced";
  EXPECT_NE(other.head.find("vary: origin"), std::string::npos);
}

TEST_F(RespondTest, ForAllOriginsTheAnswerIsTheSame) {
  start([](RespondPolicy& part) {
    part.cors.enabled = true;
    part.cors.origins = {"*"};
    part.cors.headers = {"*"};
  });
  const Answer answer = get_x("Origin: https://any.test\r\n");
  EXPECT_EQ(answer.field("access-control-allow-origin"), "*");
  EXPECT_EQ(answer.field("vary"), "");
  EXPECT_EQ(preflight("https://any.test", "PUT", "Access-Control-Request-Headers: a,b\r\n")
                .field("access-control-allow-headers"),
            "a,b");
}

// A page of another site can read that it is over its limit.
TEST_F(RespondTest, CorsHoldsForRefusalsToo) {
  auto limit = std::make_shared<LimitPolicy>();
  limit->requests = 1;
  limit->per_ms = 3'600'000;
  edge_.model.policies.push_back({"q", true, {{"limit", limit}}});
  auto part = std::make_shared<RespondPolicy>();
  cors(*part);
  edge_.model.policies.push_back({"web", true, {{"respond", part}}});
  edge_.add_fixed("/x", 204);
  edge_.start();
  EXPECT_EQ(get_x().status, 204);
  const Answer over = get_x("Origin: https://app.test\r\n");
  EXPECT_EQ(over.status, 429);
  EXPECT_EQ(over.field("access-control-allow-origin"), "https://app.test");
}

TEST_F(RespondTest, AnErrorPageStandsForTheProxysOwnSentenceAlone) {
  start([](RespondPolicy& part) { part.error_pages = {{{502, 404}, "<p>{status} {request_id}</p>"}}; });
  origin_->die();
  const Answer page = get_x();
  EXPECT_EQ(page.status, 502);
  EXPECT_EQ(page.field("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(page.head.find("content-type"), page.head.rfind("content-type"));
  EXPECT_EQ(page.body, "<p>502 " + page.field("x-request-id") + "</p>");
  EXPECT_EQ(ask(edge_.endpoint(), get("/other")).field("content-type"), "text/plain; charset=utf-8")
      << "another route has no page";
}

TEST_F(RespondTest, AnIdOfATrustedProxyIsPlainTextInAPage) {
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  start([](RespondPolicy& part) { part.error_pages = {{{502}, "{request_id}"}}; });
  origin_->die();
  EXPECT_EQ(get_x("X-Request-Id: <script>&\"'\r\n").body, "_script____");
}

TEST_F(RespondTest, WhatABackendOrARouteSaysIsNoErrorPage) {
  auto part = std::make_shared<RespondPolicy>();
  part->error_pages = {{{404, 503}, "page"}};
  edge_.model.policies.push_back({"web", true, {{"respond", part}}});
  Origin origin([](const std::string&, Wire& wire) {
    return wire.send("HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nown");
  });
  edge_.add_route("/x", edge_.add_pool("p", {origin.endpoint()}));
  edge_.add_fixed("/fixed", 503, "fixed");
  edge_.start();
  EXPECT_EQ(get_x().body, "own");
  EXPECT_EQ(ask(edge_.endpoint(), get("/fixed")).body, "fixed");
  EXPECT_EQ(ask(edge_.endpoint(), get("/none")).body, "page");
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(read_answer(wire, true).field("content-length"), "4");
}

TEST_F(RespondTest, MaintenanceIsForAllButThoseWhoAreExcepted) {
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  start([](RespondPolicy& part) {
    part.maintenance.enabled = true;
    part.maintenance.retry_after_s = 60;
    part.maintenance.body = "<p>soon</p>";
    part.maintenance.except = {*Cidr::parse("192.0.2.0/24")};
  });
  const Answer closed = get_x();
  EXPECT_EQ(closed.status, 503);
  EXPECT_EQ(closed.body, "<p>soon</p>");
  EXPECT_EQ(closed.field("retry-after"), "60");
  EXPECT_EQ(closed.field("content-type"), "text/html; charset=utf-8");
  EXPECT_EQ(get_x("X-Forwarded-For: 192.0.2.9\r\n").status, 200);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"maintenance\"}"), 1u);
  EXPECT_EQ(verdicts("maintenance", "exempt"), 1u);
}

TEST_F(RespondTest, AMockAnswersInsteadOfTheBackend) {
  start([](RespondPolicy& part) {
    part.mock.enabled = true;
    part.mock.status = 201;
    part.mock.body = "{\"id\":1}";
    part.mock.headers = {{"X-Mock", "yes"}};
  });
  const Answer answer = get_x();
  EXPECT_EQ(answer.status, 201);
  EXPECT_EQ(answer.body, "{\"id\":1}");
  EXPECT_EQ(answer.field("content-type"), "application/json");
  EXPECT_EQ(answer.field("x-mock"), "yes");
  EXPECT_EQ(origin_->requests(), 0u);
  EXPECT_EQ(verdicts("mock", "answered"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"maintenance\"}"), 0u);
}

}  // namespace tidegate::l7::test::respond_test
