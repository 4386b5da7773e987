// SPDX-License-Identifier: Apache-2.0
// authenticate: forward. Requests wait for the answer of a service.
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/authenticate.h"
#include "conf/policy/authorise.h"
#include "core/clock.h"
#include "l7/limits.h"
#include "l7/policy/grants.h"
#include "l7/policy/policy.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::forward_test {

TEST(Grants, LastUntilTheirTimeIsOver) {
  policy::Grants grants(64);
  Arena arena;
  EXPECT_TRUE(grants.add("amy", "yes", 100));
  EXPECT_EQ(grants.find("amy", 99, arena), "yes");
  EXPECT_EQ(grants.find("amy", 100, arena), std::nullopt);
  EXPECT_EQ(grants.find("eve", 99, arena), std::nullopt);
  EXPECT_TRUE(grants.add("amy", "yes again", 200));
  EXPECT_EQ(grants.find("amy", 150, arena), "yes again");
  EXPECT_FALSE(grants.add("bob", std::string(kGrantBytes + 1, 'x'), 100));
  EXPECT_EQ(grants.find("bob", 50, arena), std::nullopt);
}

TEST(Grants, AreBoundedAndForgetTheOneThatEndsFirst) {
  policy::Grants grants(64);
  Arena arena;
  for (uint64_t i = 0; i < 1'000; ++i) grants.add(std::to_string(i), std::to_string(i), 1'000 + i);
  size_t known = 0;
  for (uint64_t i = 0; i < 1'000; ++i) {
    const std::optional<std::string_view> found = grants.find(std::to_string(i), 500, arena);
    if (!found) continue;
    EXPECT_EQ(*found, std::to_string(i));
    ++known;
  }
  EXPECT_LE(known, grants.entries());
  EXPECT_GT(known, 32u) << "most sets are in use";
  EXPECT_TRUE(grants.find("999", 500, arena)) << "the one that ends last stays";
}

class ForwardTest : public ::testing::Test {
 protected:
  ForwardTest() : origin_(Origin::says("x")), part_(std::make_shared<AuthenticatePolicy>()) {
    part_->forward.enabled = true;
    part_->forward.path = "/verify?app=1";
  }
  // `service`: its backends.
  void start(const std::vector<Endpoint>& service) {
    part_->forward.pool = edge_.add_pool("service", service);
    edge_.model.policies.push_back({"sso", false, {{"authenticate", part_}}});
    if (roles_) edge_.model.policies.push_back({"roles", true, {{"authorise", roles_}}});
    edge_.add_route("/x", edge_.add_pool("p", {origin_.endpoint()})).policies = {0};
    edge_.start();
  }
  // Publishes the policy with `change`. The workers get it a moment later.
  void publish_with(const std::function<void(ForwardAuth&)>& change) {
    part_ = std::make_shared<AuthenticatePolicy>(*part_);
    change(part_->forward);
    edge_.model.policies[0].parts["authenticate"] = part_;
    ASSERT_TRUE(edge_.publish());
  }
  Answer with(const std::string& fields, const std::string& path = "/x") {
    return ask(edge_.endpoint(), get(path, "a.test", fields));
  }
  uint64_t failures(const std::string& reason) {
    return edge_.metric("tidegate_l7_failures_total{reason=\"" + reason + "\"}");
  }
  uint64_t counted(const std::string& what) {
    return edge_.metric("tidegate_l7_forward_" + what + "_total{policy=\"sso\"}");
  }
  uint64_t in_flight() { return edge_.metric("tidegate_l7_backend_in_flight{pool=\"service\",backend=\"b1\"}"); }
  // Knows one client by its token. `head` has field names in lower case.
  static Origin::Handler knows_amy() {
    return [](const std::string& head, Wire& wire) {
      if (head.find("authorization: Bearer good") != std::string::npos) {
        return wire.send(Origin::ok("", "X-User: amy\r\nX-Groups: reader, writer\r\nX-Plan: gold\r\nX-Other: 1\r\n"));
      }
      return wire.send(
          "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Form\r\nX-Secret: 1\r\nContent-Type: text/html\r\n"
          "Content-Length: 6\r\n\r\nsignin");
    };
  }
  Edge edge_;
  Origin origin_;
  std::shared_ptr<AuthenticatePolicy> part_;
  std::shared_ptr<AuthorisePolicy> roles_;
};

TEST_F(ForwardTest, TheServiceLearnsOfTheRequestAndTheBackendOfTheClient) {
  Origin service(knows_amy());
  part_->forward.to_backend = {"X-Plan"};
  part_->forward.name_header = "X-User";
  part_->forward.roles_header = "X-Groups";
  part_->identity_header = "X-Client";
  auto authorise = std::make_shared<AuthorisePolicy>();
  authorise->rules = {{{"GET"}, {"writer"}, {}}};
  roles_ = authorise;
  start({service.endpoint()});
  const std::string fields =
      "Authorization: Bearer good\r\nCookie: a=b\r\nX-Private: 1\r\nX-Plan: free\r\nX_Client: root\r\n"
      "X-Forwarded-Uri: /other\r\nX-Forwarded-For: 192.0.2.1\r\n";
  EXPECT_EQ(with(fields, "/x?q=1").status, 200);
  const std::string asked = service.last_head(), passed = origin_.last_head();
  EXPECT_EQ(asked.substr(0, asked.find('\r')), "GET /verify?app=1 HTTP/1.1");
  for (const char* line : {"Host: a.test\r\n", "Authorization: Bearer good\r\n", "Cookie: a=b\r\n",
                           "X-Forwarded-Method: GET\r\n", "X-Forwarded-Uri: /x?q=1\r\n", "X-Forwarded-Host: a.test\r\n",
                           "X-Forwarded-Proto: http\r\n", "X-Forwarded-For: 127.0.0.1\r\n"}) {
    EXPECT_NE(asked.find(line), std::string::npos) << line << " in " << asked;
  }
  for (const char* text : {"X-Private", "/other", "192.0.2.1"}) EXPECT_EQ(asked.find(text), std::string::npos) << asked;
  EXPECT_NE(passed.find("X-Plan: gold\r\n"), std::string::npos) << passed;
  EXPECT_NE(passed.find("X-Client: amy\r\n"), std::string::npos) << passed;
  for (const char* text : {"free", "root", "X-Other", "X-Groups"})
    EXPECT_EQ(passed.find(text), std::string::npos) << passed;
  EXPECT_EQ(counted("asks"), 1u);
}

TEST_F(ForwardTest, ARefusalReachesTheClientWithItsFieldsAndBody) {
  Origin service(knows_amy());
  part_->forward.to_client = {"WWW-Authenticate"};
  start({service.endpoint()});
  const Answer answer = with("Authorization: Bearer bad\r\n");
  EXPECT_EQ(answer.status, 401);
  EXPECT_EQ(answer.body, "signin");
  EXPECT_EQ(answer.field("content-type"), "text/html");
  EXPECT_EQ(answer.field("www-authenticate"), "form");
  EXPECT_EQ(answer.field("x-secret"), "");
  EXPECT_EQ(failures("unauthenticated"), 1u);
  EXPECT_EQ(origin_.requests(), 0u);
}

TEST_F(ForwardTest, ARedirectIsARefusalWhereTheDocumentSaysSo) {
  Origin service([](const std::string&, Wire& wire) {
    return wire.send("HTTP/1.1 302 Found\r\nLocation: https://id.test/\r\nContent-Length: 0\r\n\r\n");
  });
  part_->forward.refusals = {302};
  part_->forward.to_client = {"Location"};
  start({service.endpoint()});
  const Answer answer = with("");
  EXPECT_EQ(answer.status, 302);
  EXPECT_EQ(answer.field("location"), "https://id.test/");
}

TEST_F(ForwardTest, ABodyThatIsTooLargeIsLeftOutAndTheRefusalStands) {
  Origin service([](const std::string&, Wire& wire) {
    const std::string body(kCallAnswerBytes + 1, 'x');
    return wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body);
  });
  start({service.endpoint()});
  const Answer answer = with("");
  EXPECT_EQ(answer.status, 403);
  EXPECT_NE(answer.body.find("may not do that"), std::string::npos);
  EXPECT_EQ(counted("bodies_dropped"), 1u);
}

TEST_F(ForwardTest, AServiceThatFailsRefusesOrPassesAsTheDocumentSays) {
  Origin service(
      [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"); });
  start({service.endpoint()});
  EXPECT_EQ(with("").status, 503);
  service.die();
  EXPECT_EQ(with("").status, 503);
  EXPECT_EQ(failures("auth_unavailable"), 2u);
  publish_with([](ForwardAuth& forward) { forward.failure_status = 403; });
  EXPECT_TRUE(edge_.run_until([&] { return with("").status == 403; }));
  EXPECT_EQ(origin_.requests(), 0u);
  publish_with([](ForwardAuth& forward) { forward.on_failure = ForwardAuth::OnFailure::pass; });
  EXPECT_TRUE(edge_.run_until([&] { return with("").status == 200; }));
  EXPECT_GE(counted("failures"), 4u);
}

// Otherwise anybody could be anybody for as long as the service fails.
TEST_F(ForwardTest, AClientsOwnFieldsAreNotTakenForTheServicesWhenItFails) {
  Origin service(
      [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"); });
  part_->forward.to_backend = {"X-User", "X-Roles"};
  part_->forward.name_header = "X-User";
  part_->forward.on_failure = ForwardAuth::OnFailure::pass;
  part_->keep_credentials = false;
  start({service.endpoint()});
  EXPECT_EQ(
      with("X-User: root\r\nX_User: root\r\nX-Roles: root\r\nAuthorization: Basic cm9vdA==\r\nX-Mine: 1\r\n").status,
      200);
  const std::string head = origin_.last_head();
  EXPECT_EQ(head.find("root"), std::string::npos) << head;
  EXPECT_EQ(head.find("Authorization"), std::string::npos) << head;
  EXPECT_NE(head.find("X-Mine: 1"), std::string::npos) << head;
}

TEST_F(ForwardTest, ASilentServiceHasItsTimeAndIsChargedWithIt) {
  Origin service([](const std::string&, Wire& wire) { return !wire.at_end(); });
  part_->forward.timeout_ms = 50;
  start({service.endpoint()});
  EXPECT_EQ(with("").status, 503);
  EXPECT_EQ(failures("auth_unavailable"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"service\",backend=\"b1\"}"), 1u);
  EXPECT_EQ(in_flight(), 0u);
}

TEST_F(ForwardTest, AnotherBackendIsAskedWhereOneFails) {
  Origin closes([](const std::string&, Wire&) { return false; }), service(knows_amy());
  start({closes.endpoint(), service.endpoint()});
  for (int i = 0; i < 4; ++i) EXPECT_EQ(with("Authorization: Bearer good\r\n").status, 200);
  EXPECT_GE(closes.requests(), 1u);
  EXPECT_EQ(service.requests(), 4u);
}

TEST_F(ForwardTest, AKeptConnectionThatTheServiceClosedCostsNobodyAnything) {
  // Answers the first request of each connection and closes at the second.
  std::mutex mutex;
  std::set<const Wire*> used;
  Origin service([&](const std::string&, Wire& wire) {
    const std::lock_guard lock(mutex);
    if (used.insert(&wire).second) return wire.send(Origin::ok(""));
    used.erase(&wire);
    return false;
  });
  start({service.endpoint()});
  Wire wire = Wire::connect(edge_.endpoint());
  for (int i = 0; i < 2; ++i) {
    wire.send(get("/x"));
    EXPECT_EQ(read_answer(wire).status, 200);
  }
  EXPECT_EQ(service.requests(), 3u);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"service\",backend=\"b1\"}"), 0u);
}

TEST_F(ForwardTest, ACallEndsWhenItsClientLeaves) {
  Origin service([](const std::string&, Wire& wire) { return !wire.at_end(); });
  part_->forward.timeout_ms = 60'000;
  start({service.endpoint()});
  {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get("/x"));
    ASSERT_TRUE(edge_.run_until([&] { return service.requests() == 1; }));
    EXPECT_EQ(in_flight(), 1u);
  }
  EXPECT_TRUE(edge_.run_until([&] { return failures("client_gone") == 1 && in_flight() == 0; }));
  EXPECT_EQ(origin_.requests(), 0u);
}

TEST_F(ForwardTest, RequestsWaitForTheirTurnAtAFullService) {
  std::atomic<bool> open{false};
  Origin service([&](const std::string&, Wire& wire) {
    while (!open) std::this_thread::yield();
    return wire.send(Origin::ok(""));
  });
  part_->forward.timeout_ms = 60'000;
  const uint32_t pool = edge_.add_pool("service", {service.endpoint()});
  edge_.model.pools[pool].max_connections = 1;
  part_->forward.pool = pool;
  edge_.model.policies.push_back({"sso", false, {{"authenticate", part_}}});
  edge_.add_route("/x", edge_.add_pool("p", {origin_.endpoint()})).policies = {0};
  edge_.start();
  std::vector<Wire> clients;
  for (int i = 0; i < 4; ++i) {
    clients.push_back(Wire::connect(edge_.endpoint()));
    clients.back().send(get("/x"));
  }
  ASSERT_TRUE(edge_.run_until([&] { return counted("asks") == 4; }));
  open = true;
  for (Wire& client : clients) EXPECT_EQ(read_answer(client).status, 200);
}

TEST_F(ForwardTest, ABodyWaitsUntilTheServiceHasSpoken) {
  Origin service(knows_amy());
  start({service.endpoint()});
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("GET /x HTTP/1.1\r\nHost: a.test\r\nAuthorization: Bearer good\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_EQ(read_answer(wire).status, 200);
  EXPECT_EQ(service.last_head().find("Content-Length"), std::string::npos) << "the body stays here";
}

TEST_F(ForwardTest, AYesIsRememberedByWhatTheServiceJudgesAndANoNever) {
  Origin service(knows_amy());
  part_->forward.cache_ttl_ms = 3'600'000;
  part_->forward.to_backend = {"X-Plan"};
  part_->forward.name_header = "X-User";
  part_->identity_header = "X-Client";
  start({service.endpoint()});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(with("Authorization: Bearer good\r\n").status, 200);
    EXPECT_NE(origin_.last_head().find("X-Plan: gold\r\n"), std::string::npos);
    EXPECT_NE(origin_.last_head().find("X-Client: amy\r\n"), std::string::npos);
  }
  EXPECT_EQ(counted("asks"), 1u);
  EXPECT_EQ(counted("remembered"), 2u);
  EXPECT_EQ(with("Authorization: Bearer good\r\n", "/x?q=1").status, 200) << "it was told of the query";
  EXPECT_EQ(counted("asks"), 2u);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(with("Authorization: Bearer bad\r\n").status, 401);
  EXPECT_EQ(counted("asks"), 4u);
  // The question is different, so no earlier answer is used. Then the cookie and the query do not matter.
  publish_with([](ForwardAuth& forward) { forward.cache_by = {"header:Authorization"}; });
  EXPECT_TRUE(edge_.run_until([&] {
    EXPECT_EQ(with("Authorization: Bearer good\r\n").status, 200);
    return counted("asks") == 5;
  }));
  EXPECT_EQ(with("Authorization: Bearer good\r\nCookie: b=c\r\n", "/x?q=2").status, 200);
  EXPECT_EQ(counted("asks"), 5u);
}

TEST_F(ForwardTest, AYesOfAnotherServiceIsNotUsed) {
  Origin first(knows_amy()), second([](const std::string&, Wire&wire) {
    return wire.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  });
  part_->forward.cache_ttl_ms = 3'600'000;
  const uint32_t other = edge_.add_pool("other", {second.endpoint()});
  start({first.endpoint()});
  EXPECT_EQ(with("Authorization: Bearer good\r\n").status, 200);
  publish_with([&](ForwardAuth& forward) { forward.pool = other; });
  EXPECT_TRUE(edge_.run_until([&] { return with("Authorization: Bearer good\r\n").status == 403; }));
  EXPECT_EQ(first.requests(), 1u);
}

TEST_F(ForwardTest, AClientCannotAddToWhatTheServiceIsToldOfItsRequest) {
  Origin service(knows_amy());
  part_->forward.request_headers = {"Authorization", "X-Forwarded-Uri", "X-Forwarded-Method"};
  start({service.endpoint()});
  EXPECT_EQ(with("Authorization: Bearer good\r\nX-Forwarded-Uri: /public\r\nX-Forwarded-Method: HEAD\r\n").status, 200);
  const std::string asked = service.last_head();
  EXPECT_NE(asked.find("X-Forwarded-Uri: /x\r\n"), std::string::npos) << asked;
  EXPECT_EQ(asked.find("/public"), std::string::npos) << asked;
  EXPECT_EQ(asked.find("HEAD"), std::string::npos) << asked;
}

// A proxy before this one says which host the client asked for. The service is told of it, so it counts.
TEST_F(ForwardTest, AYesIsForTheHostThatATrustedProxyNames) {
  Origin service(knows_amy());
  part_->forward.cache_ttl_ms = 3'600'000;
  edge_.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  start({service.endpoint()});
  const std::string good = "Authorization: Bearer good\r\nX-Forwarded-Host: ";
  EXPECT_EQ(with(good + "one.test\r\n").status, 200);
  EXPECT_EQ(with(good + "one.test\r\n").status, 200);
  EXPECT_EQ(counted("asks"), 1u);
  EXPECT_EQ(with(good + "two.test\r\n").status, 200);
  EXPECT_EQ(counted("asks"), 2u);
  EXPECT_NE(service.last_head().find("X-Forwarded-Host: two.test\r\n"), std::string::npos) << service.last_head();
}

TEST_F(ForwardTest, AServiceThatLeadsBackHereEndsAsALoop) {
  part_->forward.path = "/x";
  start({*Endpoint::parse("127.0.0.1:1")});
  // From now on the service is this proxy, and the policy applies to its own questions.
  edge_.model.pools[0].backends[0].addresses = {edge_.endpoint().address};
  edge_.model.pools[0].backends[0].port = edge_.endpoint().port;
  publish_with([](ForwardAuth& forward) { forward.timeout_ms = 60'000; });
  EXPECT_TRUE(edge_.run_until([&] {
    EXPECT_EQ(with("").status, 503);
    return failures("loop_detected") == 1;
  }));
}

TEST_F(ForwardTest, ExplainTellsWhomItAsks) {
  Origin service(knows_amy());
  start({service.endpoint()});
  HttpRequest request;
  request.query = "url=http://a.test/x&client=192.0.2.1";
  const nlohmann::json told = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(told["asks"], "service");
  EXPECT_EQ(told["path"], "/verify?app=1");
  EXPECT_EQ(told["on_failure"], "503");
  EXPECT_EQ(service.requests(), 0u) << "explain asks nobody";
  EXPECT_EQ(with("Authorization: Bearer good\r\n").status, 200);
  EXPECT_EQ(edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"sso\",kind=\"forward\",verdict=\"passed\"}"), 1u);
}

}  // namespace tidegate::l7::test::forward_test
