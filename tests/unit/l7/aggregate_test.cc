// SPDX-License-Identifier: Apache-2.0
// The aggregate policy: what clients get from several backends, complete or in part.
#include <gtest/gtest.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/compress.h"
#include "core/clock.h"
#include "core/http_server.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::aggregate_test {

using nlohmann::json;

class AggregateTest : public ::testing::Test {
 protected:
  AggregateTest() : part_(std::make_shared<AggregatePolicy>()) {}
  // Two parts: `user` is required, `orders` is not.
  void start() {
    AggregatePart user, orders;
    user.name = "user";
    user.pool = edge_.add_pool("users", {users_.endpoint()});
    user.path = user_path_;
    user.query = {{"lang", "{query.lang}"}, {"none", "{query.none}"}};
    user.pass_statuses = {404};
    orders.name = "orders";
    orders.pool = edge_.add_pool("orders", {orders_.endpoint()});
    orders.path = "/orders";
    orders.host = "orders.test";
    orders.required = false;
    orders.fallback = "[]";
    part_->parts = {user, orders};
    part_->request_headers = {"Authorization"};
    edge_.model.policies.push_back({"home", false, {{"aggregate", part_}}});
    edge_.add_route("/home/{id}", edge_.add_pool("own", {own_.endpoint()})).policies = {0};
    for (Pool& pool : edge_.model.pools) pool.retry_attempts = 0;
    edge_.start();
  }
  Answer home(const std::string& fields = "", const std::string& path = "/home/7") {
    return ask(edge_.endpoint(), get(path, "a.test", fields));
  }
  uint64_t counted(const std::string& family, const std::string& part) {
    return edge_.metric("tidegate_l7_aggregate_" + family + "{policy=\"home\",part=\"" + part + "\"}");
  }
  uint64_t failures(const std::string& reason) {
    return edge_.metric("tidegate_l7_failures_total{reason=\"" + reason + "\"}");
  }
  uint64_t in_flight(const std::string& pool) {
    return edge_.metric("tidegate_l7_backend_in_flight{pool=\"" + pool + "\",backend=\"b1\"}");
  }
  static std::string says(int status, const std::string& body, const std::string& fields = "") {
    return "HTTP/1.1 " + std::to_string(status) + " X\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
           fields + "\r\n" + body;
  }
  // The text of an origin's answer. The test changes it while the origin's threads read it.
  class Text {
   public:
    explicit Text(std::string text) : text_(std::move(text)) {}
    Text& operator=(std::string text) {
      const std::lock_guard lock(mutex_);
      text_ = std::move(text);
      return *this;
    }
    std::string get() const {
      const std::lock_guard lock(mutex_);
      return text_;
    }

   private:
    mutable std::mutex mutex_;
    std::string text_;
  };
  // An origin that answers with the text. While the text is empty, it does not answer.
  static Origin::Handler tells(const Text& text) {
    return [&text](const std::string&, Wire& wire) {
      const std::string now = text.get();
      return now.empty() ? !wire.at_end() : wire.send(now);
    };
  }

  std::string user_path_ = "/users/{id}";
  Text user_{says(200, R"({"name":"amy"})", "Content-Type: application/json\r\n")};
  Text orders_text_{says(200, R"([1,2])")};
  Origin users_{tells(user_)}, orders_{tells(orders_text_)}, own_{Origin::says("own")};
  std::shared_ptr<AggregatePolicy> part_;
  Edge edge_;
};

TEST_F(AggregateTest, SeveralAnswersBecomeOneObject) {
  start();
  const Answer answer = home("Authorization: Bearer t\r\nCookie: a=b\r\n", "/home/a%20b?lang=de%26x");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, R"({"user":{"name":"amy"},"orders":[1,2]})");
  EXPECT_EQ(answer.field("content-type"), "application/json");
  EXPECT_EQ(answer.field("content-length"), std::to_string(answer.body.size()));
  const std::string asked = users_.last_head();
  EXPECT_EQ(asked.substr(0, asked.find('\r')), "GET /users/a%20b?lang=de%26x HTTP/1.1") << "no parameter is empty";
  for (const char* line : {"Host: a.test\r\n", "Authorization: Bearer t\r\n", "X-Forwarded-For: 127.0.0.1\r\n"}) {
    EXPECT_NE(asked.find(line), std::string::npos) << line << " in " << asked;
  }
  EXPECT_EQ(asked.find("Cookie"), std::string::npos);
  EXPECT_NE(orders_.last_head().find("Host: orders.test\r\n"), std::string::npos) << orders_.last_head();
  EXPECT_EQ(own_.requests(), 0u);
  EXPECT_EQ(counted("parts_total", "user"), 1u);
  EXPECT_EQ(counted("parts_failed_total", "user"), 0u);
}

TEST_F(AggregateTest, HeadHasTheLengthAndOtherMethodsGoToTheRoute) {
  start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("HEAD /home/7 HTTP/1.1\r\nHost: a.test\r\n\r\n");
  const Answer head = read_answer(wire, true);
  EXPECT_EQ(head.status, 200);
  EXPECT_EQ(head.field("content-length"), "38");
  wire.send(get("/home/7"));
  EXPECT_EQ(read_answer(wire).status, 200) << "the connection is in order";
  EXPECT_EQ(ask(edge_.endpoint(), "POST /home/7 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n").body, "own");
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(Http2Client::request("/home/7"));
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).body, R"({"user":{"name":"amy"},"orders":[1,2]})");
}

TEST_F(AggregateTest, APartThatIsNotRequiredIsLeftOutAndTold) {
  start();
  const auto expect = [&](const std::string& why) {
    const Answer answer = home();
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(json::parse(answer.body),
              (json{{"user", {{"name", "amy"}}}, {"orders", json::array()}, {"errors", {{"orders", why}}}}));
  };
  orders_text_ = says(500, "oops");
  expect("status_500");
  orders_text_ = says(404, "{}");
  expect("status_404");
  orders_text_ = says(200, "{\"a\":");
  expect("no_json");
  orders_text_ = says(200, "<html>");
  expect("no_json");
  orders_text_ = says(200, "x", "Content-Encoding: gzip\r\n");
  expect("body_coded");
  orders_text_ = says(200, "\"" + std::string(part_->most, 'x') + "\"");
  expect("body_too_large");
  orders_text_ = "nonsense\r\n\r\n";
  expect("bad_response");
  EXPECT_EQ(counted("parts_failed_total", "orders"), 7u);
  EXPECT_EQ(edge_.metric("tidegate_l7_aggregate_partial_total{policy=\"home\"}"), 7u);
  orders_.die();
  const json dead = json::parse(home().body);
  EXPECT_TRUE(dead["errors"].contains("orders")) << dead.dump();
}

TEST_F(AggregateTest, ARequiredPartThatFailsIsTheAnswer) {
  start();
  user_ = says(500, "oops");
  EXPECT_EQ(home().status, 502);
  user_ = says(200, "nothing");
  EXPECT_EQ(home().status, 502);
  EXPECT_EQ(failures("bad_response"), 2u);
  user_ = says(404, "{\"error\":\"no such user\"}", "Content-Type: application/problem+json\r\n");
  const Answer missing = home();
  EXPECT_EQ(missing.status, 404) << "a status that the document passes on";
  EXPECT_EQ(missing.body, "{\"error\":\"no such user\"}");
  EXPECT_EQ(missing.field("content-type"), "application/problem+json");
  users_.die();
  EXPECT_EQ(home().status, 502);
  EXPECT_EQ(counted("parts_failed_total", "user"), 4u);
}

// One deadline for all: the silent part is missing, and the parts that came are in the answer.
TEST_F(AggregateTest, ASilentPartHasTheTimeOfAllParts) {
  part_->timeout_ms = 150;
  orders_text_ = "";
  start();
  const uint64_t begun_ns = monotonic_ns();
  const Answer answer = home();
  EXPECT_GE(monotonic_ns() - begun_ns, 150 * kNsPerMs);
  EXPECT_EQ(json::parse(answer.body)["errors"]["orders"], "first_byte_timeout") << answer.body;
  EXPECT_EQ(json::parse(answer.body)["user"]["name"], "amy");
  user_ = "";
  EXPECT_EQ(home().status, 504) << "the required one";
}

TEST_F(AggregateTest, AClientThatLeavesEndsAllParts) {
  user_ = "";
  orders_text_ = "";
  start();
  {
    Wire leaver = Wire::connect(edge_.endpoint());
    leaver.send(get("/home/7"));
    ASSERT_TRUE(edge_.run_until([&] { return in_flight("users") == 1 && in_flight("orders") == 1; }));
    leaver.reset();
  }
  EXPECT_TRUE(edge_.run_until([&] { return in_flight("users") == 0 && in_flight("orders") == 0; }));
}

// Bodies larger than a block, and many clients at one time: at the end the whole budget is free again.
TEST_F(AggregateTest, LargePartsPassWholeAndGiveTheirMemoryBack) {
  const std::string large = "\"" + std::string(200'000, 'x') + "\"";
  user_ = says(200, large);
  orders_text_ = says(200, large);
  edge_.model.nodes[0].l7.workers = 2;
  start();
  std::vector<std::thread> clients;
  std::atomic<int> whole{0};
  for (int c = 0; c < 4; ++c) {
    clients.emplace_back([&] {
      Wire wire = Wire::connect(edge_.endpoint());
      for (int i = 0; i < 5; ++i) {
        wire.send(get("/home/7"));
        whole += read_answer(wire).body == "{\"user\":" + large + ",\"orders\":" + large + "}" ? 1 : 0;
      }
    });
  }
  for (std::thread& client : clients) client.join();
  EXPECT_EQ(whole, 20);
}

TEST_F(AggregateTest, WhatARequestCannotBeMadeOfIsRefused) {
  user_path_ = "/users/{header.x-id}";
  start();
  EXPECT_EQ(home("X-Id: ..\r\n").status, 400) << "a path that leaves its place";
  EXPECT_EQ(home("X-Id: " + std::string(17'000, 'x') + "\r\n").status, 400);
  EXPECT_EQ(failures("not_transformable"), 2u);
  EXPECT_EQ(orders_.requests(), 0u);
  EXPECT_EQ(users_.requests(), 0u);
}

TEST_F(AggregateTest, ExplainNamesThePartsAndCompressActsOnTheWhole) {
  start();
  HttpRequest request;
  request.query = "url=http://a.test/home/7&client=192.0.2.9";
  const json entry = (*edge_.proxy().explain(request))["policies"][0];
  EXPECT_EQ(entry["verdict"], "answered");
  EXPECT_EQ(entry["stage"], "aggregate");
  EXPECT_EQ(entry["parts"][0], (json{{"name", "user"}, {"pool", "users"}, {"required", true}}));
  auto compress = std::make_shared<CompressPolicy>();
  compress->minimum = 0;
  edge_.model.policies.push_back({"small", true, {{"compress", compress}}});
  ASSERT_TRUE(edge_.publish());
  EXPECT_TRUE(edge_.run_until([&] { return home("Accept-Encoding: gzip\r\n").field("content-encoding") == "gzip"; }));
}

}  // namespace tidegate::l7::test::aggregate_test
