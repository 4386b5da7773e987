// SPDX-License-Identifier: Apache-2.0
// Explain before a request: what it says is what happens, and it does not guess what it cannot know.
#include "l7/observe/explain.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "conf/policy/authenticate.h"
#include "conf/policy/fault.h"
#include "conf/policy/limit.h"
#include "conf/policy/split.h"
#include "core/percent.h"
#include "l7/proxy.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::explain_test {

using nlohmann::json;
using ::testing::HasSubstr;

class ExplainBefore : public ::testing::Test {
 protected:
  Result<json> ask_explain(const std::string& more, const std::string& path = "/x") {
    HttpRequest question;
    question.query = "client=127.0.0.1&url=http%3A%2F%2Fa.test" + percent_encode(path) + more;
    return edge.proxy().explain(question);
  }
  json explained(const std::string& headers, const std::string& path = "/x") {
    return *ask_explain("&headers=" + percent_encode(headers), path);
  }
  // The fate of the request by its record.
  json happened(const Answer& answer) {
    HttpRequest question;
    question.query = "request=" + answer.field("x-request-id");
    json told;
    EXPECT_TRUE(edge.run_until([&] { return (told = *edge.proxy().explain(question))["found"] == true; })) << told;
    return told["records"][0];
  }
  template <class Part>
  void add_policy(const char* kind, const std::function<void(Part&)>& set) {
    auto part = std::make_shared<Part>();
    set(*part);
    Policy policy;
    policy.name = "q";
    policy.parts[kind] = part;
    edge.model.policies.push_back(policy);
  }
  Edge edge;
};

TEST_F(ExplainBefore, AFieldThatALimitCountsByIsTakenIntoAccount) {
  add_policy<LimitPolicy>("limit", [](LimitPolicy& part) {
    part.requests = 1;
    part.per_ms = 3'600'000;
    part.by = {"header:x-key"};
  });
  edge.add_fixed("/x", 204).policies = {0};
  edge.start();
  EXPECT_EQ(explained("X-Key: a")["ends"], json({{"at", "route"}, {"status", 204}}));
  EXPECT_EQ(ask(edge.endpoint(), get("/x", "a.test", "X-Key: a\r\n")).status, 204);
  const json refused = explained("X-Key: a");
  EXPECT_EQ(refused["ends"]["at"], "policy") << refused;
  EXPECT_EQ(refused["ends"]["policy"], "q") << refused;
  EXPECT_EQ(ask(edge.endpoint(), get("/x", "a.test", "X-Key: a\r\n")).status, 429);
  EXPECT_EQ(explained("X-Key: b")["ends"]["at"], "route") << "another key has a quota of its own";
}

TEST_F(ExplainBefore, TheHashOfAFieldPicksWhatItPicksForTheRequest) {
  Origin first(Origin::says("1")), second(Origin::says("2")), third(Origin::says("3"));
  const uint32_t pool = edge.add_pool("p", {first.endpoint(), second.endpoint(), third.endpoint()});
  edge.model.pools[pool].policy = PoolPolicy::consistent_hash;
  edge.model.pools[pool].hash_on = "header:X-User";
  edge.add_route("/*", pool);
  edge.start();
  std::set<std::string> backends;
  for (int i = 0; i < 20; ++i) {
    const std::string field = "X-User: u" + std::to_string(i);
    const json before = explained(field);
    const json record = happened(ask(edge.endpoint(), get("/x", "a.test", field + "\r\n")));
    EXPECT_EQ(before["backend"], record["backend"]) << field;
    EXPECT_EQ(before["route"], record["route"]);
    backends.insert(record["backend"].get<std::string>());
  }
  EXPECT_GT(backends.size(), 1u) << "or the test cannot fail";
}

TEST_F(ExplainBefore, WhatTheParserRefusesIsToldAsRefused) {
  edge.add_fixed("/*", 204);
  edge.start();
  for (const std::string field : {"Bad Name: x", "Space : x", "A: \x01", "Expect: the worst"}) {
    const json before = explained(field);
    EXPECT_EQ(before["ends"]["at"], "head") << before;
    EXPECT_EQ(before["ends"]["status"], ask(edge.endpoint(), get("/x", "a.test", field + "\r\n")).status) << field;
  }
  EXPECT_EQ(explained("A: b")["ends"]["at"], "route");
}

TEST_F(ExplainBefore, ABodyBeyondTheListenersBoundIsToldAsRefused) {
  Origin origin(Origin::says("x"));
  edge.model.listeners[0].max_body_bytes = 5;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  EXPECT_EQ((*ask_explain("&method=POST&body=6"))["ends"], json({{"at", "route"}, {"status", 413}}));
  EXPECT_EQ((*ask_explain("&method=POST&body=5"))["ends"], json({{"at", "backend"}}));
  EXPECT_EQ(ask(edge.endpoint(), "POST /x HTTP/1.1\r\nHost: a.test\r\nContent-Length: 6\r\n\r\n123456").status, 413);
}

TEST_F(ExplainBefore, CredentialsAndWhatDependsOnThemAreNotGuessed) {
  add_policy<AuthenticatePolicy>("authenticate", [](AuthenticatePolicy& part) { part.basic.enabled = true; });
  add_policy<LimitPolicy>("limit", [](LimitPolicy& part) {
    part.requests = 1;
    part.by = {"identity"};
  });
  edge.add_fixed("/x", 204).policies = {0, 1};
  edge.start();
  const json told = explained("Authorization: Basic YTpi");
  ASSERT_EQ(told["not_asked"].size(), 2u) << told;
  EXPECT_THAT(told["not_asked"][0].get<std::string>(), HasSubstr("credentials"));
  EXPECT_THAT(told["not_asked"][1].get<std::string>(), HasSubstr("identity"));
  for (const json& entry : told["policies"]) EXPECT_FALSE(entry.contains("verdict")) << entry;
}

TEST_F(ExplainBefore, ATrustedProxysWordOnItsClientHolds) {
  edge.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  add_policy<LimitPolicy>("limit", [](LimitPolicy& part) {
    part.requests = 1;
    part.per_ms = 3'600'000;
  });
  edge.add_fixed("/x", 204).policies = {0};
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/x", "a.test", "X-Forwarded-For: 192.0.2.1\r\n")).status, 204);
  EXPECT_EQ(explained("X-Forwarded-For: 192.0.2.1")["ends"]["at"], "policy");
  EXPECT_EQ(explained("X-Forwarded-For: 192.0.2.2")["ends"]["at"], "route");
}

TEST_F(ExplainBefore, WhatChanceDecidesIsNotGuessed) {
  Origin origin(Origin::says("x"));
  const uint32_t stable = edge.add_pool("stable", {origin.endpoint()});
  const uint32_t canary = edge.add_pool("canary", {origin.endpoint()});
  add_policy<SplitPolicy>("split", [&](SplitPolicy& part) {
    part.variants.resize(2);
    part.variants[0] = {.name = "stable", .pool = stable, .weight = 1};
    part.variants[1] = {.name = "canary", .pool = canary, .weight = 1};
  });
  edge.add_route("/*", stable).policies = {0};
  edge.start();
  const json told = explained("A: b");
  EXPECT_TRUE(told["ends"].is_null()) << told;
  EXPECT_TRUE(told["pool"].is_null()) << told;
  ASSERT_EQ(told["not_asked"].size(), 1u) << told;
  EXPECT_THAT(told["not_asked"][0].get<std::string>(), HasSubstr("policy q, split: chance"));
}

TEST_F(ExplainBefore, AFaultIsToldOnlyWhereItIsCertain) {
  const auto fault = [&](double percent) {
    auto part = std::make_shared<FaultPolicy>();
    part->abort_status = 503;
    part->abort_percent = percent;
    edge.model.policies[0].parts["fault"] = part;
  };
  edge.model.policies.push_back({"q", true, {}});
  fault(100);
  edge.add_fixed("/x", 204).policies = {0};
  edge.start();
  EXPECT_EQ(explained("A: b")["ends"]["at"], "policy");
  EXPECT_EQ(ask(edge.endpoint(), get("/x")).status, 503);
  fault(50);
  ASSERT_TRUE(edge.publish());
  EXPECT_THAT(explained("A: b")["not_asked"][0].get<std::string>(), HasSubstr("chance decides"));
  fault(0);
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(explained("A: b")["not_asked"].empty());
  EXPECT_EQ(explained("A: b")["ends"], json({{"at", "route"}, {"status", 204}}));
}

TEST_F(ExplainBefore, ACallOfGrpcFailsAsGrpcSays) {
  edge.add_fixed("/x", 204);
  edge.start();
  const auto ends = [&](const std::string& method) {
    return (*ask_explain("&method=" + method + "&headers=" + percent_encode("Content-Type: application/grpc"),
                         "/nowhere"))["ends"];
  };
  // gRPC's own mapping of 404 ("HTTP to gRPC status code mapping"): UNIMPLEMENTED.
  EXPECT_EQ(ends("POST"), json({{"at", "route"}, {"status", 200}, {"grpc_status", "12"}}));
  EXPECT_EQ(ends("GET"), json({{"at", "route"}, {"status", 404}})) << "a call of gRPC is a POST";
  const Answer answer = ask(edge.endpoint(), get("/nowhere", "a.test", "Content-Type: application/grpc\r\n"));
  EXPECT_EQ(answer.status, 404);
}

TEST_F(ExplainBefore, MalformedQuestionsAreRefused) {
  edge.start();
  for (const char* more : {"&headers=nocolon", "&headers=Host%3A%20b", "&headers=content-length%3A%201",
                           "&headers=Transfer-Encoding%3A%20chunked", "&headers=A%3A%20b%0A%0AC%3A%20d"}) {
    EXPECT_FALSE(ask_explain(more)) << more;
  }
}

}  // namespace tidegate::l7::test::explain_test
