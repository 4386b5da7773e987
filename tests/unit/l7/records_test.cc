// SPDX-License-Identifier: Apache-2.0
// Explain of past requests: what is remembered about a request, for how long, and what the answer says about the rest.
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "l7/observe/request_records.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "conf/policy/limit.h"
#include "conf/policy/split.h"
#include "l7/proxy.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::records_test {

using nlohmann::json;
using ::testing::HasSubstr;

class PastRequests : public ::testing::Test {
 protected:
  Result<json> answer_to(const std::string& query) {
    HttpRequest question;
    question.query = query;
    return edge.proxy().explain(question);
  }
  json explained(const std::string& id) { return *answer_to("request=" + id); }
  // The newest record of the answer's request, as soon as there is one.
  json record_of(const Answer& answer) {
    const std::string id = answer.field("x-request-id");
    EXPECT_FALSE(id.empty()) << answer.head;
    EXPECT_TRUE(edge.run_until([&] { return explained(id)["found"] == true; })) << explained(id);
    return explained(id)["records"][0];
  }
  Edge edge;
};

TEST_F(PastRequests, ARetryIsToldWithTheBackendThatFailedAndTheReason) {
  Origin dead(Origin::says("")), alive(Origin::says("alive"));
  dead.die();
  const uint32_t pool = edge.add_pool("p", {dead.endpoint(), alive.endpoint()});
  edge.model.pools[pool].eject_after = 0;
  edge.add_route("/*", pool);
  edge.start();
  json record;
  for (int i = 0; i < 2 && (record.is_null() || record["tries"] != 2); ++i) {
    record = record_of(ask(edge.endpoint(), get("/")));
    EXPECT_EQ(record["status"], 200) << record;
    EXPECT_EQ(record["backend"], "b2") << record;
  }
  EXPECT_EQ(record["tries"], 2) << "one of two turns is the dead one's";
  ASSERT_EQ(record["failed_tries"].size(), 1u) << record;
  EXPECT_EQ(record["failed_tries"][0]["backend"], "b1") << record;
  EXPECT_EQ(record["failed_tries"][0]["failure"], "connect_failed") << record;
  EXPECT_EQ(record["route"], "r1");
  EXPECT_EQ(record["pool"], "p");
  EXPECT_EQ(record["policy"], "weighted_round_robin");
  EXPECT_EQ(record["listener"], "plain");
  EXPECT_EQ(record["version"], 1);
  EXPECT_EQ(record["peer"], "127.0.0.1");
  EXPECT_EQ(record["client"], "127.0.0.1");
  EXPECT_EQ(record["destination"], "127.0.0.1");
  EXPECT_EQ(record["destination_port"], edge.endpoint().port);
  EXPECT_EQ(record["cache"], nullptr);
  EXPECT_THAT(record["reason"].get<std::string>(), HasSubstr("those before it had failed"));
}

TEST_F(PastRequests, NamesAndVersionAreThoseOfTheRequestWhateverChangedSince) {
  Origin origin(Origin::says("x"));
  edge.add_route("/old", edge.add_pool("before", {origin.endpoint()}));
  edge.start();
  const Answer answer = ask(edge.endpoint(), get("/old"));
  edge.model.routes.clear();
  edge.model.pools.clear();
  edge.add_fixed("/new", 204).name = "later";
  ASSERT_TRUE(edge.publish());
  const json record = record_of(answer);
  EXPECT_EQ(record["route"], "r1");
  EXPECT_EQ(record["pool"], "before");
  EXPECT_EQ(record["backend"], "b1");
  EXPECT_EQ(record["version"], 1);
  EXPECT_EQ(record["reason"], "the only backend that took new work");
  Answer later;
  ASSERT_TRUE(edge.run_until([&] { return (later = ask(edge.endpoint(), get("/new"))).status == 204; }));
  EXPECT_EQ(record_of(later)["route"], "later");
  EXPECT_EQ(record_of(later)["version"], 2);
}

TEST_F(PastRequests, APolicyThatRefusesIsToldByName) {
  auto part = std::make_shared<LimitPolicy>();
  part->requests = 1;
  part->per_ms = 3'600'000;
  Policy policy;
  policy.name = "quota";
  policy.parts["limit"] = part;
  edge.model.policies = {policy};
  edge.add_fixed("/x", 204).policies = {0};
  edge.start();
  const json passed = record_of(ask(edge.endpoint(), get("/x")));
  EXPECT_EQ(passed["policies"][0], json({{"policy", "quota"}, {"kind", "limit"}, {"verdict", "passed"}}));
  EXPECT_EQ(passed["reason"], "answered by the route itself");
  const json refused = record_of(ask(edge.endpoint(), get("/x")));
  EXPECT_EQ(refused["policies"][0]["verdict"], "refused");
  EXPECT_EQ(refused["status"], 429);
  EXPECT_EQ(refused["failure"], "rate_limited");
}

TEST_F(PastRequests, TheVariantThatASplitGaveIsToldWhateverChangedSince) {
  Origin stable(Origin::says("stable")), canary(Origin::says("canary"));
  const uint32_t first = edge.add_pool("stable", {stable.endpoint()});
  const uint32_t second = edge.add_pool("canary", {canary.endpoint()});
  auto part = std::make_shared<SplitPolicy>();
  part->variants = {{"next", second, 0, "header:X-Canary", {}}, {"current", first, 1, "", {}}};
  edge.model.policies.push_back({"weighted", false, {{"split", part}}});
  edge.add_route("/*", first).policies = {0};
  edge.add_fixed("/fixed", 204);
  edge.start();
  const Answer next = ask(edge.endpoint(), get("/", "a.test", "X-Canary: 1\r\n"));
  const Answer current = ask(edge.endpoint(), get("/"));
  ASSERT_EQ(next.body + current.body, "canarystable");
  EXPECT_EQ(record_of(ask(edge.endpoint(), get("/fixed")))["variant"], nullptr);
  auto renamed = std::make_shared<SplitPolicy>(*part);
  renamed->variants[0].name = "later";
  edge.model.policies[0].parts["split"] = renamed;
  ASSERT_TRUE(edge.publish());
  EXPECT_EQ(record_of(next)["variant"], "next");
  EXPECT_EQ(record_of(next)["pool"], "canary");
  EXPECT_EQ(record_of(current)["variant"], "current");
}

TEST_F(PastRequests, TheCachesVerdictIsTold) {
  const StateDir state;
  edge.state_dir = state.path;
  edge.model.nodes[0].cache.enabled = true;
  Origin origin(
      [](const std::string&, Wire& wire) { return wire.send(Origin::ok("x", "Cache-Control: max-age=600\r\n")); });
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).cache.enabled = true;
  edge.start();
  const json miss = record_of(ask(edge.endpoint(), get("/a")));
  EXPECT_EQ(miss["cache"]["hit"], false) << miss;
  EXPECT_EQ(miss["cache"]["forward"], "uri-miss");
  EXPECT_EQ(miss["cache"]["stored"], true);
  json hit;
  EXPECT_TRUE(edge.run_until([&] {
    hit = record_of(ask(edge.endpoint(), get("/a")));
    return hit["cache"]["hit"] == true;
  })) << hit;
  EXPECT_EQ(hit["backend"], nullptr);
  EXPECT_EQ(hit["reason"], "answered from the cache");
}

TEST_F(PastRequests, MalformedAndUnroutedRequestsAreTold) {
  edge.start();
  const json unrouted = record_of(ask(edge.endpoint(), get("/nowhere")));
  EXPECT_EQ(unrouted["failure"], "no_route");
  EXPECT_EQ(unrouted["route"], nullptr);
  const json malformed = record_of(ask(edge.endpoint(), "GET / HTTP/1.1\r\nHost : a\r\n\r\n"));
  EXPECT_EQ(malformed["failure"], "bad_request");
  EXPECT_EQ(malformed["status"], 400);
}

TEST_F(PastRequests, TheIdAndTheClientOfATrustedProxyAreKept) {
  edge.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  edge.add_fixed("/*", 204);
  edge.start();
  const std::string named = "X-Request-Id: of the proxy\r\nX-Forwarded-For: 2001:db8::7\r\n";
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", named)).field("x-request-id"), "of the proxy");
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", named)).status, 204);
  EXPECT_TRUE(edge.run_until([&] { return explained("of%20the%20proxy")["records"].size() == 2; }))
      << "each pass of a repeated id is told: " << explained("of%20the%20proxy");
  const json record = explained("of%20the%20proxy")["records"][0];
  EXPECT_EQ(record["client"], "2001:db8::7");
  EXPECT_EQ(record["peer"], "127.0.0.1");
  // An id of our own form, from another proxy of the edge.
  const std::string made = "0123456789abcdef0123456789abcdef";
  ask(edge.endpoint(), get("/", "a.test", "X-Request-Id: " + made + "\r\n"));
  EXPECT_TRUE(edge.run_until([&] { return explained(made)["found"] == true; }));
}

TEST_F(PastRequests, WhatWasForgottenIsSaidSoWithTheReason) {
  edge.model.nodes[0].l7.remember_requests_bytes = 4 * RequestRing::kRecordBytes;
  edge.add_fixed("/*", 204);
  edge.start();
  EXPECT_THAT(explained("unknown")["forgotten"].get<std::string>(), HasSubstr("it was started then"));
  const Answer first = ask(edge.endpoint(), get("/"));
  record_of(first);
  Answer last;
  for (int i = 0; i < 4; ++i) last = ask(edge.endpoint(), get("/"));
  record_of(last);
  const json gone = explained(first.field("x-request-id"));
  EXPECT_EQ(gone["found"], false);
  EXPECT_THAT(gone["forgotten"].get<std::string>(), HasSubstr("newer ones needed the memory"));
  EXPECT_EQ(edge.metric("tidegate_l7_remembered_requests"), 3u);
}

TEST_F(PastRequests, AfterTheTimeThatTheNodeSaysARequestIsForgotten) {
  edge.model.nodes[0].l7.remember_requests_ms = 1;
  edge.add_fixed("/*", 204);
  edge.start();
  const std::string id = ask(edge.endpoint(), get("/")).field("x-request-id");
  EXPECT_TRUE(edge.run_until([&] {
    const json answer = explained(id);
    return edge.metric("tidegate_l7_remembered_requests") == 1 && answer["found"] == false &&
           answer["forgotten"].get<std::string>().find("l7.remember_requests says so") != std::string::npos;
  })) << explained(id);
}

TEST_F(PastRequests, AProxyThatRemembersNothingSaysSo) {
  edge.model.nodes[0].l7.remember_requests_ms = 0;
  edge.add_fixed("/*", 204);
  edge.start();
  const std::string id = ask(edge.endpoint(), get("/")).field("x-request-id");
  EXPECT_THAT(explained(id)["forgotten"].get<std::string>(), HasSubstr("remembers no requests"));
}

TEST_F(PastRequests, MalformedQuestionsAreRefused) {
  edge.start();
  for (const std::string& query : {std::string("request="), "request=" + std::string(129, 'a'),
                                   std::string("request=a&url=http://x/"), std::string("request=a&client=192.0.2.1")}) {
    EXPECT_FALSE(answer_to(query)) << query;
  }
}

// A worker writes as fast as it can while the main thread reads. The reader always gets a whole record.
TEST(RequestRingTest, AReaderNeverSeesHalfARecord) {
  constexpr uint64_t kRecords = 20'000;
  const std::unique_ptr<RequestRing> ring = *RequestRing::make(8);
  std::atomic<bool> done{false};
  std::thread worker([&] {
    for (uint64_t n = 1; n <= kRecords; ++n) {
      RecordSlot& record = ring->next(7);
      record.key_low = 7;
      record.version = n;
      record.ended_ns = n;
      record.live_state = n;
      record.verdicts = n;
      record.tries = static_cast<uint16_t>(n);
      record.chosen_by = ChosenBy::policy;
      ring->publish();
    }
    done = true;
  });
  while (!done) {
    std::vector<RequestRecord> records;
    ring->find({7, 7}, 16, records);
    for (const RequestRecord& record : records) {
      ASSERT_EQ(record.version, record.ended_ns);
      ASSERT_EQ(record.version, record.live_state);
      ASSERT_EQ(record.version, record.verdicts);
      ASSERT_EQ(record.version, record.tries);
    }
  }
  worker.join();
  std::vector<RequestRecord> records;
  ring->find({7, 7}, 16, records);
  ASSERT_EQ(records.size(), 7u);
  for (size_t i = 0; i < records.size(); ++i) EXPECT_EQ(records[i].version, kRecords - i) << "the newest first";
  EXPECT_EQ(ring->oldest_ns(), kRecords - 6);
}

TEST(NameIdsTest, BeyondItsBoundANameHasNoNumberAndIsCounted) {
  NameIds names(2);
  EXPECT_EQ(names.id("a"), 1u);
  EXPECT_EQ(names.id("b"), 2u);
  EXPECT_EQ(names.id("a"), 1u);
  EXPECT_EQ(names.id("c"), 0u);
  EXPECT_EQ(names.refused(), 1u);
  EXPECT_EQ(names.name(2), "b");
  EXPECT_EQ(names.name(0), "");
}

}  // namespace tidegate::l7::test::records_test
