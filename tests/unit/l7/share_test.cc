// SPDX-License-Identifier: Apache-2.0
// One client costs only its own share: answers that it does not read, heads that take time to parse, bodies that it
// never sends.
#include <gtest/gtest.h>

#include <thread>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::share_test {

Route fixed_route(const std::string& name, const std::string& path, uint16_t status, const std::string& body = "") {
  Route route;
  route.name = name;
  route.path = path;
  route.what = RouteAnswer{status, body};
  return route;
}

TEST(Share, TenThousandPipelinedRequestsAreAllAnsweredInOrderThoughTheirClientReadsLate) {
  constexpr size_t kRequests = 10'000;
  const std::string page(2'000, 'p');
  Edge edge;
  Route redirect = fixed_route("redirect", "/to/{id}", 302);
  redirect.what = RouteRedirect{"/there/{id}"};
  edge.model.routes = {redirect, fixed_route("page", "/page", 200, page), fixed_route("nothing", "/nothing", 204)};
  edge.start();
  std::string requests;
  for (size_t i = 0; i < kRequests; ++i) {
    switch (i % 5) {
      case 0:
        requests += get("/to/" + std::to_string(i));
        break;
      case 1:
        requests += get("/page");
        break;
      case 2:
        requests += get("/nothing");
        break;
      case 3:
        requests += "HEAD /page HTTP/1.1\r\nHost: a\r\n\r\n";
        break;
      default:
        requests += get("/no/such/route");
    }
  }
  Wire wire = Wire::connect(edge.endpoint(), 64 * 1024);
  std::thread sender([&] { wire.send(requests); });
  EXPECT_TRUE(edge.run_until(
      [&] { return edge.metric("tidegate_l7_requests_total{protocol=\"http/1.1\",status=\"3xx\"}") >= 20; }));
  // Meanwhile a bystander on the same worker is served.
  EXPECT_EQ(ask(edge.endpoint(), get("/page")).body, page);
  size_t answered = 0;
  for (size_t i = 0; i < kRequests && answered == i; ++i) {
    const Answer answer = read_answer(wire, i % 5 == 3);
    constexpr int kStatus[] = {302, 200, 204, 200, 404};
    const bool right = answer.complete && answer.status == kStatus[i % 5] &&
                       (i % 5 != 0 || answer.field("location") == "/there/" + std::to_string(i)) &&
                       (i % 5 != 1 || answer.body == page);
    answered += right ? 1 : 0;
  }
  EXPECT_EQ(answered, kRequests);
  wire.half_close();
  sender.join();
}

// 64 options are far more than any client sends. Each costs a look at every field.
TEST(Share, AHeadRichInConnectionOptionsAndFieldsIsRefusedAndCountedAndAnOrdinaryRichOneIsNot) {
  Edge edge;
  edge.model.routes = {fixed_route("page", "/*", 200, "page")};
  edge.start();
  std::string fields;
  for (int i = 0; i < 90; ++i) fields += "x" + std::to_string(i) + ": y\r\n";
  std::string options = "Connection: a";
  for (int i = 0; i < 14'000; ++i) options += ",a";
  const Answer refused = ask(edge.endpoint(), get("/", "a.test", fields + options + "\r\n"));
  EXPECT_EQ(refused.status, 431);
  EXPECT_EQ(edge.metric("tidegate_l7_requests_refused_total{protocol=\"any\",reason=\"too_many_options\"}"), 1u);
  std::string honest = "Connection: keep-alive";
  for (int i = 0; i < 60; ++i) honest += ", x" + std::to_string(i);
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", fields + honest + "\r\n")).body, "page");
}

TEST(Share, ABackendsHeadRichInConnectionOptionsIsTooLarge) {
  std::string options = "Connection: a";
  for (int i = 0; i < 14'000; ++i) options += ",a";
  Origin origin([&](const std::string&, Wire& wire) {
    return wire.send(Origin::ok("x", "X-Of-The-Backend: y\r\n" + options + "\r\n"));
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  const Answer answer = ask(edge.endpoint(), get("/"));
  EXPECT_EQ(answer.status, 502);
  EXPECT_EQ(answer.field("x-of-the-backend"), "") << "a field of the refused answer in our own";
}

// The backend waits for a body that the client has not sent yet, so the client is late, and not the backend.
TEST(Share, RequestsThatNeverSendTheirBodyDoNotEjectTheBackend) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.starts_with("POST")) return !wire.at_end();
    return wire.send(Origin::ok("alive"));
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.model.pools[pool].eject_after = 2;
  edge.add_route("/*", pool).total_timeout_ms = 50;
  edge.start();
  for (int i = 0; i < 4; ++i) {
    const Answer answer = ask(edge.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    EXPECT_EQ(answer.status, 408);
  }
  EXPECT_EQ(edge.metric("tidegate_l7_failures_total{reason=\"request_late\"}"), 4u);
  EXPECT_EQ(edge.metric("tidegate_l7_failures_total{reason=\"total_timeout\"}"), 0u);
  EXPECT_EQ(edge.metric("tidegate_l7_ejections_total"), 0u);
  EXPECT_EQ(edge.metric("tidegate_l7_retries_total"), 0u);
  EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "alive");
}

// Like gunicorn or Node with a request whose body does not come.
TEST(Share, ABackendThatGivesUpOnABodyThatItsClientOwesIsNotEjected) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.starts_with("GET")) return wire.send(Origin::ok("alive"));
    return false;
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.model.pools[pool].eject_after = 2;
  edge.add_route("/*", pool);
  edge.start();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(ask(edge.endpoint(), "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345").status, 502);
  }
  EXPECT_EQ(edge.metric("tidegate_l7_ejections_total"), 0u);
  EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "alive");
}

// The twin: this backend had the whole request.
TEST(Share, ABackendThatHadTheWholeRequestAndDoesNotAnswerInTimeIsToBlame) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.model.pools[pool].eject_after = 2;
  edge.add_route("/*", pool).total_timeout_ms = 50;
  edge.start();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ask(edge.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").status, 504);
  }
  EXPECT_EQ(edge.metric("tidegate_l7_ejections_total"), 1u);
}

// The last byte comes just before the time-out, so the backend has no time left to answer.
TEST(Share, ABackendThatGotTheBodyAtTheLastMomentIsNotToBlame) {
  std::atomic<size_t> whole{0};
  Origin origin([&](const std::string&, Wire& wire) {
    wire.read_exactly(2);
    ++whole;
    return !wire.at_end();
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.model.pools[pool].eject_after = 1;
  edge.add_route("/*", pool).total_timeout_ms = 1500;
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na");
  const auto began = std::chrono::steady_clock::now();
  edge.run_until([&] { return std::chrono::steady_clock::now() - began > std::chrono::milliseconds(900); });
  wire.send("b");
  const Answer answer = read_answer(wire);
  ASSERT_EQ(whole, 1u);
  EXPECT_EQ(answer.status, 504);
  EXPECT_EQ(edge.metric("tidegate_l7_ejections_total"), 0u);
}

}  // namespace tidegate::l7::test::share_test
