// SPDX-License-Identifier: Apache-2.0
// The split policy (canary by weight and by what a request says) and the fault policy, as clients and backends see
// them.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <nlohmann/json.hpp>
#include <set>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/policy/fault.h"
#include "conf/policy/mirror.h"
#include "conf/policy/split.h"
#include "conf/policy/transform.h"
#include "core/clock.h"
#include "core/http_server.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::split_test {

class SplitTest : public ::testing::Test {
 protected:
  SplitTest()
      : stable_(Origin::says("stable")), canary_(Origin::says("canary")), part_(std::make_shared<SplitPolicy>()) {}
  void start(uint32_t canary_weight) {
    const uint32_t stable = edge_.add_pool("stable", {stable_.endpoint()});
    const uint32_t canary = edge_.add_pool("canary", {canary_.endpoint()});
    part_->variants = {{"canary", canary, canary_weight, when_, values_}, {"stable", stable, 90, "", {}}};
    edge_.model.policies.push_back({"canary", true, {{"split", part_}}});
    edge_.add_route("/*", stable);
    edge_.start();
  }
  std::string variant(const std::string& fields = "") {
    return ask(edge_.endpoint(), get("/x", "a.test", fields)).body;
  }
  uint64_t counted(const std::string& name) {
    return edge_.metric("tidegate_l7_split_requests_total{policy=\"canary\",variant=\"" + name + "\"}");
  }
  // The users among 200 that get the canary.
  std::set<int> users_of_canary() {
    std::set<int> out;
    Wire wire = Wire::connect(edge_.endpoint());
    for (int user = 0; user < 200; ++user) {
      wire.send(get("/x", "a.test", "X-User: " + std::to_string(user) + "\r\n"));
      if (read_answer(wire).body == "canary") out.insert(user);
    }
    return out;
  }
  Edge edge_;
  Origin stable_, canary_;
  std::shared_ptr<SplitPolicy> part_;
  std::string when_;
  std::vector<std::string> values_;
};

TEST_F(SplitTest, ByHeaderTakesTheRequestsThatHaveItAndNoOthers) {
  when_ = "header:X-Canary";
  values_ = {"yes", "true"};
  start(0);
  EXPECT_EQ(variant(), "stable");
  EXPECT_EQ(variant("X-Canary: yes\r\n"), "canary");
  EXPECT_EQ(variant("x-canary: true\r\n"), "canary");
  EXPECT_EQ(variant("X-Canary: no\r\n"), "stable");
  EXPECT_EQ(variant("X-Canary: \r\n"), "stable");
  EXPECT_EQ(counted("canary"), 2u);
  EXPECT_EQ(counted("stable"), 3u);
  EXPECT_EQ(stable_.requests(), 3u);
}

TEST_F(SplitTest, AVariantHasFieldsOfItsOwnForBackendAndClient) {
  Origin origin([](const std::string&, Wire& wire) { return wire.send(Origin::ok("echo", "X-Old: 1\r\n")); });
  const uint32_t pool = edge_.add_pool("echo", {origin.endpoint()});
  part_->variants = {
      {"next", pool, 0, "header:X-Canary", {}, {{"X-Release", "next"}, {"X-Debug", ""}}, {{"X-Old", ""}}},
      {"current", pool, 1, "", {}}};
  edge_.model.policies.push_back({"canary", true, {{"split", part_}}});
  edge_.add_route("/*", pool);
  edge_.start();
  Answer answer =
      ask(edge_.endpoint(),
          get("/x", "a.test",
              "X-Canary: 1\r\nX-Debug: 1\r\nX-Release: forged\r\nX_Release: forged\r\nX_Debug: forged\r\n"));
  EXPECT_EQ(answer.field("x-old"), "");
  std::string head = origin.last_head();
  EXPECT_NE(head.find("X-Release: next\r\n"), std::string::npos) << head;
  EXPECT_EQ(head.find("X-Debug"), std::string::npos) << head;
  EXPECT_EQ(head.find("forged"), std::string::npos) << "also under names that a backend could read as these: " << head;
  answer = ask(edge_.endpoint(), get("/x", "a.test", "X-Debug: 1\r\n"));
  EXPECT_EQ(answer.field("x-old"), "1");
  head = origin.last_head();
  EXPECT_EQ(head.find("X-Release"), std::string::npos) << head;
  EXPECT_NE(head.find("X-Debug: 1"), std::string::npos) << head;
  EXPECT_EQ(edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"canary\",kind=\"split\",verdict=\"passed\"}"), 2u);
}

TEST_F(SplitTest, ByCookieTakesAnyValueWhereNoneIsNamed) {
  when_ = "cookie:beta";
  start(0);
  EXPECT_EQ(variant("Cookie: a=1; beta=x\r\n"), "canary");
  EXPECT_EQ(variant("Cookie: a=1; beta=\r\n"), "stable");
  EXPECT_EQ(variant("Cookie: alpha=x\r\n"), "stable");
}

// A hash gives users to variants: the same at each visit, and about as many as the weight says.
TEST_F(SplitTest, StickyUsersStayAndAGreaterWeightOnlyAddsSome) {
  part_->sticky = {"header:X-User"};
  start(30);  // of 120: a quarter
  const std::set<int> first = users_of_canary();
  EXPECT_GT(first.size(), 25u);
  EXPECT_LT(first.size(), 80u);
  EXPECT_EQ(users_of_canary(), first);
  auto grown = std::make_shared<SplitPolicy>(*part_);
  grown->variants[0].weight = 90;  // a half
  edge_.model.policies[0].parts["split"] = grown;
  ASSERT_TRUE(edge_.publish());
  std::set<int> second;
  ASSERT_TRUE(edge_.run_until([&] { return (second = users_of_canary()).size() > first.size(); }));
  EXPECT_TRUE(std::includes(second.begin(), second.end(), first.begin(), first.end())) << "nobody moved back";
  EXPECT_GT(second.size(), 65u);
  EXPECT_LT(second.size(), 135u);
}

TEST_F(SplitTest, WithoutStickyEachRequestIsChosenForAnew) {
  start(90);
  size_t canary = 0;
  Wire wire = Wire::connect(edge_.endpoint());
  for (int i = 0; i < 200; ++i) {
    wire.send(get("/x"));
    canary += read_answer(wire).body == "canary" ? 1 : 0;
  }
  // A half; outside of this range once in 10^9 runs.
  EXPECT_GT(canary, 57u);
  EXPECT_LT(canary, 143u);
  EXPECT_EQ(counted("canary"), canary);
}

TEST_F(SplitTest, ExplainFollowsTheSplitAsFarAsItIsDecided) {
  start(0);
  HttpRequest request;
  request.query = "url=http://a.test/x&client=192.0.2.9";
  nlohmann::json answer = *edge_.proxy().explain(request);
  EXPECT_EQ(answer["policies"][0]["variant"], "stable") << answer.dump();
  EXPECT_EQ(answer["policies"][0]["variants"].size(), 2u);
  EXPECT_EQ(answer["pool"], "stable");
  part_ = std::make_shared<SplitPolicy>(*part_);
  part_->variants[0].weight = 1;
  part_->variants[1].weight = 0;
  edge_.model.policies[0].parts["split"] = part_;
  ASSERT_TRUE(edge_.publish());
  answer = *edge_.proxy().explain(request);
  EXPECT_EQ(answer["policies"][0]["variant"], "canary");
  EXPECT_EQ(answer["pool"], "canary");
}

// Only a real request shows who its client is. Nothing is guessed of it.
TEST_F(SplitTest, ExplainNamesNoVariantThatDependsOnWhoTheClientIs) {
  for (const char* word : {"identity", "claim:sub"}) {
    part_->sticky = {"host", word};
    if (edge_.model.policies.empty()) {
      start(60);
    } else {
      edge_.model.policies[0].parts["split"] = part_;
      ASSERT_TRUE(edge_.publish());
    }
    HttpRequest request;
    request.query = "url=http://a.test/x&client=192.0.2.9";
    const nlohmann::json answer = *edge_.proxy().explain(request);
    EXPECT_TRUE(answer["policies"][0]["variant"].is_null()) << word << ": " << answer.dump();
  }
}

// The answers of both variants are stored under one URL. So a purge reaches both, and no client gets the other
// variant's.
class CachedSplitTest : public ::testing::Test {
 protected:
  CachedSplitTest() : stable_(stores("stable")), canary_(stores("canary")), part_(std::make_shared<SplitPolicy>()) {
    edge_.state_dir = state_.path;
    edge_.model.nodes[0].cache.enabled = true;
    const uint32_t stable = edge_.add_pool("stable", {stable_.endpoint()});
    const uint32_t canary = edge_.add_pool("canary", {canary_.endpoint()});
    part_->variants = {{"new", canary, 0, "header:X-Canary", {}}, {"old", stable, 1, "", {}}};
    edge_.model.policies.push_back({"canary", true, {{"split", part_}}});
    edge_.add_route("/*", stable).cache.enabled = true;
  }
  Origin::Handler stores(const std::string& body) {
    return [this, body](const std::string&, Wire& wire) {
      return wire.send(Origin::ok(body, "Cache-Control: " + lifetime_ + "\r\n"));
    };
  }
  std::string body_for(const char* who) {
    return ask(edge_.endpoint(), get("/x", "a.test", who == std::string("canary") ? "X-Canary: 1\r\n" : "")).body;
  }
  nlohmann::json explained(const std::string& method = "GET", const std::string& headers = "") {
    HttpRequest request;
    request.query = "url=http://a.test/x&client=192.0.2.9&method=" + method + headers;
    return *edge_.proxy().explain(request);
  }
  const StateDir state_;
  std::string lifetime_ = "max-age=600";
  Edge edge_;
  Origin stable_, canary_;
  std::shared_ptr<SplitPolicy> part_;
};

TEST_F(CachedSplitTest, EachVariantHasItsOwnAnswersAndAPurgeTakesAll) {
  edge_.start();
  for (uint64_t asked = 1; asked <= 2; ++asked) {
    for (int i = 0; i < 3; ++i) {
      EXPECT_EQ(body_for("anybody"), "stable");
      EXPECT_EQ(body_for("canary"), "canary");
    }
    EXPECT_EQ(stable_.requests(), asked);
    EXPECT_EQ(canary_.requests(), asked);
    Purge purge;
    purge.value = "http://a.test/x";
    edge_.proxy().purge(purge);
  }
}

TEST_F(CachedSplitTest, ExplainNamesTheVariantWhoseAnswerIsStored) {
  edge_.start();
  EXPECT_EQ(body_for("anybody"), "stable");
  nlohmann::json answer = explained();
  EXPECT_EQ(answer["cache"]["outcome"], "hit") << answer.dump();
  EXPECT_EQ(answer["cache"]["variant"], "canary/old");
  part_ = std::make_shared<SplitPolicy>(*part_);
  part_->variants[0].when = "";
  part_->variants[0].weight = 1;  // now chance decides
  edge_.model.policies[0].parts["split"] = part_;
  ASSERT_TRUE(edge_.publish());
  answer = explained();
  EXPECT_EQ(answer["cache"], nullptr) << answer.dump();
  EXPECT_EQ(answer["not_asked"].size(), 2u) << answer.dump();
}

// The fetch without a client asks the pool of the variant that it refreshes, and not the route's.
TEST_F(CachedSplitTest, AStaleAnswerIsRefreshedByItsOwnVariant) {
  lifetime_ = "max-age=0, stale-while-revalidate=600";
  edge_.start();
  EXPECT_EQ(body_for("canary"), "canary");
  EXPECT_EQ(body_for("canary"), "canary");
  ASSERT_TRUE(edge_.run_until([&] { return canary_.requests() >= 2; }));
  EXPECT_EQ(body_for("canary"), "canary");
  EXPECT_EQ(stable_.requests(), 0u);
}

// Answers that were stored before the route had a split belong to no variant.
TEST_F(CachedSplitTest, WhatWasStoredWithoutASplitIsNobodysVariant) {
  const Elements<Policy> policies = std::exchange(edge_.model.policies, {});
  edge_.start();
  EXPECT_EQ(body_for("canary"), "stable");
  edge_.model.policies = policies;
  ASSERT_TRUE(edge_.publish());
  ASSERT_TRUE(edge_.run_until([&] { return body_for("canary") == "canary"; }));
  EXPECT_EQ(canary_.requests(), 1u);
}

class FaultTest : public ::testing::Test {
 protected:
  FaultTest() : origin_(Origin::says("x")), part_(std::make_shared<FaultPolicy>()) {}
  void start() {
    edge_.model.policies.push_back({"chaos", true, {{"fault", part_}}});
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()}));
    edge_.start();
  }
  Answer with(const std::string& fields = "") { return ask(edge_.endpoint(), get("/x", "a.test", fields)); }
  uint64_t verdicts(const std::string& verdict) {
    return edge_.metric("tidegate_l7_policy_verdicts_total{policy=\"chaos\",kind=\"fault\",verdict=\"" + verdict +
                        "\"}");
  }
  Edge edge_;
  Origin origin_;
  std::shared_ptr<FaultPolicy> part_;
};

TEST_F(FaultTest, AnAbortHasItsStatusAndNoBackendIsAsked) {
  part_->abort_status = 429;
  part_->header = "X-Fault";
  start();
  const Answer refused = with("X-Fault: 1\r\n");
  EXPECT_EQ(refused.status, 429);
  EXPECT_NE(refused.body.find("on purpose"), std::string::npos) << refused.body;
  EXPECT_EQ(origin_.requests(), 0u);
  EXPECT_EQ(with().status, 200) << "without the field";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"fault_injected\"}"), 1u);
  EXPECT_EQ(verdicts("exempt"), 1u);
}

TEST_F(FaultTest, ADelayIsWaitedForAndThenTheBackendAnswers) {
  part_->delay_ms = 30;
  start();
  const uint64_t before_ns = monotonic_ns();
  EXPECT_EQ(with().status, 200);
  EXPECT_GE(monotonic_ns() - before_ns, 30 * kNsPerMs);
  EXPECT_EQ(verdicts("waited"), 1u);
}

TEST_F(FaultTest, ADelayedRequestWhoseTimeIsOverEndsInTime) {
  part_->delay_ms = 60'000;
  edge_.model.listeners[0].request_timeout_ms = 50;
  start();
  EXPECT_EQ(with().status, 504);
  EXPECT_EQ(origin_.requests(), 0u);
}

TEST_F(FaultTest, AShareOfTheRequestsIsAborted) {
  part_->abort_status = 503;
  part_->abort_percent = 50;
  start();
  size_t aborted = 0;
  Wire wire = Wire::connect(edge_.endpoint());
  for (int i = 0; i < 200; ++i) {
    wire.send(get("/x"));
    aborted += read_answer(wire).status == 503 ? 1 : 0;
  }
  EXPECT_GT(aborted, 57u);
  EXPECT_LT(aborted, 143u);
  EXPECT_EQ(verdicts("refused"), aborted);
}

class MirrorTest : public ::testing::Test {
 protected:
  MirrorTest()
      : origin_([](const std::string& head, Wire& wire) {
          if (head.rfind("PUT", 0) == 0) wire.read_exactly(1);
          return wire.send(Origin::ok("x"));
        }),
        part_(std::make_shared<MirrorPolicy>()) {}
  void start(const Endpoint& copies) {
    part_->pool = edge_.add_pool("copies", {copies});
    edge_.model.policies.push_back({"shadow", true, {{"mirror", part_}}});
    edge_.add_route("/*", edge_.add_pool("p", {origin_.endpoint()}));
    edge_.start();
  }
  uint64_t results(const std::string& result) {
    return edge_.metric("tidegate_l7_mirror_requests_total{policy=\"shadow\",result=\"" + result + "\"}");
  }
  bool comes_to(const std::string& result, uint64_t count) {
    return edge_.run_until([&] { return results(result) == count; });
  }
  Edge edge_;
  Origin origin_;
  std::shared_ptr<MirrorPolicy> part_;
};

TEST_F(MirrorTest, ACopyGoesToTheOtherPoolAndItsAnswerIsComparedAndThrownAway) {
  std::atomic<int> asked{0};
  Origin copies([&](const std::string&, Wire& wire) {
    if (++asked == 1) return wire.send(Origin::ok("a longer answer that nobody gets"));
    return wire.send("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno");
  });
  start(copies.endpoint());
  const Answer first = ask(edge_.endpoint(), get("/a?b=1", "a.test", "X-One: 1\r\n"));
  EXPECT_EQ(first.body, "x");
  ASSERT_TRUE(comes_to("alike", 1));
  const std::string copy = copies.last_head();
  EXPECT_EQ(copy.rfind("GET /a?b=1 HTTP/1.1\r\nHost: a.test\r\n", 0), 0u) << copy;
  EXPECT_NE(copy.find("X-One: 1\r\n"), std::string::npos) << copy;
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).status, 200);
  ASSERT_TRUE(comes_to("different", 1));
  EXPECT_EQ(copies.connections(), 1u) << "its answers are read, so the connection is used again";
  EXPECT_EQ(origin_.requests(), 2u);
}

TEST_F(MirrorTest, ADeadOrSilentPoolOfCopiesHarmsNobodyAndItsBudgetHolds) {
  std::atomic<bool> done{false};
  Origin copies([&](const std::string&, Wire& wire) {
    wire.at_end();  // silent until the proxy gives up
    done = true;
    return false;
  });
  part_->most = 1;
  part_->timeout_ms = 300;
  start(copies.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).status, 200);
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).status, 200);
  EXPECT_TRUE(edge_.run_until([&] { return results("busy") + copies.requests() == 2; })) << "one at a time";
  ASSERT_TRUE(comes_to("failed", 1));
  ASSERT_TRUE(edge_.run_until([&] { return done.load(); }));
  copies.die();
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).status, 200);
  ASSERT_TRUE(comes_to("failed", 2)) << "the budget is free again";
}

TEST_F(MirrorTest, BodiesAreNotCopiedAndOneThatIsTransformedIsCopiedAsTheBackendGetsIt) {
  Origin copies(Origin::says("y"));
  auto transform = std::make_shared<TransformPolicy>();
  transform->path = TransformPath{"/in{path}", "", ""};
  edge_.model.policies.push_back({"shape", true, {{"transform", transform}}});
  start(copies.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), "PUT /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb").status, 200);
  EXPECT_EQ(results("body"), 1u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).status, 200);
  ASSERT_TRUE(comes_to("alike", 1));
  EXPECT_EQ(copies.requests(), 1u);
  EXPECT_EQ(copies.last_head().rfind("GET /in/a HTTP/1.1\r\n", 0), 0u) << copies.last_head();
}

TEST_F(MirrorTest, ALongAnswerToACopyIsNotReadToItsEnd) {
  const std::string large(4'000'000, 'y');
  Origin copies([&](const std::string&, Wire& wire) {
    return wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4000000\r\n\r\n") && wire.send(large);
  });
  start(copies.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/a")).body, "x");
  ASSERT_TRUE(comes_to("alike", 1));
}

}  // namespace tidegate::l7::test::split_test
