// SPDX-License-Identifier: Apache-2.0
// The proxy as a whole: routes, retries, timeouts, changes of configuration, drain.
#include "l7/proxy.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "conf/worker_count.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::proxy_test {

// A port on which nobody listens.
Endpoint closed_port() {
  Origin origin(Origin::says(""));
  const Endpoint endpoint = origin.endpoint();
  origin.die();
  return endpoint;
}

TEST(ProxyRoutes, FixedAnswersRedirectsAndWhatMatchesNothing) {
  Edge edge;
  Route fixed;
  fixed.name = "fixed";
  fixed.path = "/healthz";
  fixed.what = RouteAnswer{200, "fine\n"};
  Route redirect;
  redirect.name = "redirect";
  redirect.path = "/old/{id}/*";
  redirect.what = RouteRedirect{"https://{host}/new/{id}", 308};
  Route path_redirect;
  path_redirect.name = "to-https";
  path_redirect.path = "/up/*";
  path_redirect.what = RouteRedirect{"https://{host}{path}"};
  Route read_only;
  read_only.name = "ro";
  read_only.path = "/ro";
  read_only.methods = {"GET"};
  read_only.what = RouteAnswer{204, {}};
  edge.model.routes = {fixed, redirect, path_redirect, read_only};
  edge.start();
  const Answer fine = ask(edge.endpoint(), get("/healthz"));
  EXPECT_EQ(fine.status, 200);
  EXPECT_EQ(fine.body, "fine\n");
  const Answer moved = ask(edge.endpoint(), get("/old/42/x", "www.a.test:8080"));
  EXPECT_EQ(moved.status, 308);
  EXPECT_EQ(moved.field("location"), "https://www.a.test/new/42");
  EXPECT_EQ(ask(edge.endpoint(), get("/up/a?b=c")).field("location"), "https://a.test/up/a?b=c");
  EXPECT_EQ(ask(edge.endpoint(), get("/nowhere")).status, 404);
  EXPECT_EQ(ask(edge.endpoint(), "POST /ro HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 405);
}

TEST(ProxyRoutes, EditsAnswersAndKeepsEncodedPathsFromEscaping) {
  Origin origin([](const std::string& head, Wire& wire) {
    return wire.send(Origin::ok(head.substr(0, head.find("\r\n")), "Server: secret\r\n"));
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.add_route("/open/*", pool).response_headers = {{"Server", ""}, {"X-Edge", "yes"}};
  edge.start();
  const Answer answer = ask(edge.endpoint(), get("/open/a"));
  EXPECT_EQ(answer.field("server"), "");
  EXPECT_EQ(answer.field("x-edge"), "yes");
  EXPECT_EQ(ask(edge.endpoint(), get("/open/%2e%2e/closed")).status, 404);
  EXPECT_EQ(ask(edge.endpoint(), get("/open/x/%2E./a")).body, "GET /open/a HTTP/1.1");
}

TEST(ProxyRetry, ABackendThatRefusesIsPassedOverWhateverTheMethod) {
  Origin alive(Origin::says("alive"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {closed_port(), alive.endpoint()}));
  edge.start();
  for (int i = 0; i < 4; ++i) {
    const Answer answer = ask(edge.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    EXPECT_EQ(answer.body, "alive");
  }
  EXPECT_GE(edge.metric("tidegate_l7_retries_total"), 1u);
}

TEST(ProxyRetry, OnlyIdempotentRequestsAreRepeatedOnceTheyWereSent) {
  Origin failing([](const std::string&, Wire&) { return false; });
  Origin alive(Origin::says("alive"));
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {failing.endpoint(), alive.endpoint()});
  edge.model.pools[pool].eject_after = 0;
  edge.add_route("/*", pool);
  edge.start();
  std::multiset<int> gets, posts;
  for (int i = 0; i < 4; ++i) {
    gets.insert(ask(edge.endpoint(), get("/")).status);
    edge.run_until([t = std::chrono::steady_clock::now()] {  // wait until the minimum of the budget is refilled
      return std::chrono::steady_clock::now() - t > std::chrono::milliseconds(250);
    });
  }
  for (int i = 0; i < 4; ++i) {
    posts.insert(ask(edge.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status);
  }
  EXPECT_EQ(gets, (std::multiset<int>{200, 200, 200, 200}));
  EXPECT_EQ(posts, (std::multiset<int>{200, 200, 502, 502}));
}

TEST(ProxyRetry, AnAnswerWithAStatusOfTheRouteIsTriedAgainElsewhere) {
  const auto says = [](int status) {
    return [status](const std::string&, Wire& wire) {
      return wire.send("HTTP/1.1 " + std::to_string(status) + " X\r\nX-Of: bad\r\nContent-Length: 3\r\n\r\nbad");
    };
  };
  Origin bad(says(503)), alive(Origin::says("alive")), lonely(says(503));
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {bad.endpoint(), alive.endpoint()});
  Route& route = edge.add_route("/*", pool);
  route.retry_statuses = {502, 503};
  Route& alone = edge.add_route("/alone", edge.add_pool("one", {lonely.endpoint()}));
  alone.retry_statuses = {503};
  edge.start();
  for (int i = 0; i < 4; ++i) {
    const Answer answer = ask(edge.endpoint(), get("/"));
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.body, "alive");
    EXPECT_EQ(answer.field("x-of"), "") << "nothing of the answer that was thrown away";
  }
  EXPECT_EQ(bad.requests(), 2u);
  EXPECT_EQ(edge.metric("tidegate_l7_retries_total"), 2u);
  std::multiset<int> posts;
  for (int i = 0; i < 4; ++i) {
    posts.insert(ask(edge.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status);
  }
  EXPECT_EQ(posts, (std::multiset<int>{200, 200, 503, 503})) << "a POST is not repeated";
  const Answer last = ask(edge.endpoint(), get("/alone"));
  EXPECT_EQ(last.status, 503);
  EXPECT_EQ(last.body, "bad") << "nobody else can be asked: the client gets what there is";
}

Origin::Handler says_503() {
  return [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nbad"); };
}

// Otherwise the request waits in the queue, or is refused there, with its answer thrown away.
TEST(ProxyRetry, AnAnswerIsThrownAwayOnlyIfAnotherBackendHasRoom) {
  Origin bad(says_503()), silent([](const std::string&, Wire&wire) { return !wire.at_end(); });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {bad.endpoint(), silent.endpoint()});
  Pool& config = edge.model.pools[pool];
  config.max_connections = 1;
  config.queue_size = 0;
  config.retry_budget = 1;
  config.backends[1].labels = {"silent"};
  edge.add_route("/hold", pool).labels = {"silent"};
  edge.add_route("/*", pool).retry_statuses = {503};
  edge.start();
  Wire holds = Wire::connect(edge.endpoint());
  ASSERT_TRUE(holds.send(get("/hold")));
  ASSERT_TRUE(edge.run_until([&] { return silent.requests() == 1; }));
  for (int i = 0; i < 2; ++i) {
    const Answer answer = ask(edge.endpoint(), get("/x"));
    EXPECT_EQ(answer.status, 503);
    EXPECT_EQ(answer.body, "bad");
  }
  EXPECT_EQ(bad.requests(), 2u);
}

TEST(ProxyRetry, ABackendIsNotAskedAgainBecauseTheOthersAreLeftAlone) {
  Origin bad(says_503());
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {bad.endpoint(), closed_port()});
  Pool& config = edge.model.pools[pool];
  config.breaker.enabled = true;
  config.breaker.consecutive_failures = 1;
  config.breaker.open_ms = 3'600'000;
  config.retry_budget = 1;
  edge.add_route("/*", pool).retry_statuses = {503};
  edge.start();
  for (int i = 0; i < 2; ++i) EXPECT_GE(ask(edge.endpoint(), get("/")).status, 502) << "opens the dead one's breaker";
  const size_t before = bad.requests();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "bad");
  EXPECT_EQ(bad.requests(), before + 4);
}

TEST(ProxyRetry, ATryHasTheTimeOfItsRoute) {
  Origin silent([](const std::string&, Wire& wire) { return !wire.at_end(); });
  Origin alive(Origin::says("alive"));
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {silent.endpoint(), alive.endpoint()});
  edge.model.pools[pool].eject_after = 0;
  edge.add_route("/*", pool).try_timeout_ms = 50;
  edge.start();
  for (int i = 0; i < 2; ++i) EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "alive");
  EXPECT_EQ(silent.requests(), 1u);
}

TEST(ProxyRetry, TheBudgetBoundsWhatAnOutageAdds) {
  Origin failing([](const std::string&, Wire&) { return false; });
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {failing.endpoint(), failing.endpoint()});
  edge.model.pools[pool].eject_after = 0;
  edge.add_route("/*", pool);
  edge.start();
  constexpr size_t kRequests = 200;
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < kRequests; ++i) EXPECT_EQ(ask(edge.endpoint(), get("/")).status, 502);
  const auto seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const double floor = 5 * seconds + 5;
  EXPECT_LE(static_cast<double>(failing.requests()), kRequests * 1.2 + floor + 1);
  EXPECT_GT(edge.metric("tidegate_l7_retries_denied_total"), 0u);
}

// A retry takes no turn. If it did, each request would take two turns, and nearly all would try the dead backend first.
TEST(ProxyRetry, ADeadBackendIsMetFirstByItsShareOfRequestsAndNoMore) {
  Origin alive(Origin::says("alive"));
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {closed_port(), alive.endpoint()});
  edge.model.pools[pool].eject_after = 0;
  edge.add_route("/*", pool);
  edge.start();
  for (int i = 0; i < 100; ++i) EXPECT_EQ(ask(edge.endpoint(), get("/")).body, "alive");
  EXPECT_EQ(edge.metric("tidegate_l7_retries_total"), 50u);
}

TEST(ProxyRetry, ABackendAloneIsTriedAtItsOtherAddressWhenNothingWasSent) {
  Origin alive(Origin::says("alive"));
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {alive.endpoint()});
  edge.model.pools[pool].backends[0].addresses = {*IpAddress::parse("127.0.0.2"), alive.endpoint().address};
  edge.add_route("/*", pool);
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").body, "alive");
  EXPECT_EQ(edge.metric("tidegate_l7_retries_total"), 1u);
}

TEST(ProxyRetry, AConnectionThatTheBackendClosedMeanwhileIsReplacedUnnoticed) {
  // The origin says keep-alive, but closes after each answer.
  Origin origin([](const std::string&, Wire& wire) { return wire.send(Origin::ok("x")) && false; });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  for (int i = 0; i < 50; ++i) {
    wire.send(get("/"));
    EXPECT_EQ(read_answer(wire).status, 200) << i;
  }
  EXPECT_EQ(edge.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
}

TEST(ProxyTimeouts, EachHasItsStatusAndItsCounter) {
  Origin silent([](const std::string&, Wire& wire) { return !wire.at_end(); });
  Origin stuck([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    return !wire.at_end();
  });
  Edge edge;
  const uint32_t pool = edge.add_pool("silent", {silent.endpoint()});
  edge.model.pools[pool].first_byte_timeout_ms = 50;
  edge.model.pools[pool].retry_attempts = 0;
  const uint32_t stuck_pool = edge.add_pool("stuck", {stuck.endpoint()});
  edge.model.pools[stuck_pool].idle_timeout_ms = 50;
  const uint32_t patient_pool = edge.add_pool("patient", {silent.endpoint()});
  edge.add_route("/silent", pool);
  edge.add_route("/stuck", stuck_pool);
  edge.add_route("/total", patient_pool).total_timeout_ms = 50;
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/silent")).status, 504);
  EXPECT_FALSE(ask(edge.endpoint(), get("/stuck")).complete);
  EXPECT_EQ(ask(edge.endpoint(), get("/total")).status, 504);
  for (const char* reason : {"first_byte_timeout", "body_timeout", "total_timeout"}) {
    EXPECT_EQ(edge.metric(std::string("tidegate_l7_failures_total{reason=\"") + reason + "\"}"), 1u) << reason;
  }
}

TEST(ProxyPools, APoolThatIsDownSaysSo) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/")).status, 200);
  auto live_state = std::make_shared<LiveState>();
  live_state->overrides[backend_key("p", "b1")] = {};
  edge.publish(live_state);
  EXPECT_TRUE(edge.run_until([&] { return ask(edge.endpoint(), get("/")).status == 503; }));
}

TEST(ProxyPools, ABackendThatFailsInARowIsEjected) {
  Origin failing([](const std::string&, Wire&) { return false; });
  Origin alive(Origin::says("alive"));
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {failing.endpoint(), alive.endpoint()});
  edge.model.pools[pool].eject_after = 3;
  edge.add_route("/*", pool);
  edge.start();
  for (int i = 0; i < 30; ++i) ask(edge.endpoint(), get("/"));
  EXPECT_EQ(failing.requests(), 3u);
  EXPECT_EQ(edge.metric("tidegate_l7_ejections_total"), 1u);
}

TEST(ProxyChanges, ANewVersionClosesNothingAndIsSeenWhole) {
  Origin one(Origin::says("one")), two(Origin::says("two"));
  Edge edge;
  edge.model.nodes[0].l7.workers = 2;
  const uint32_t first = edge.add_pool("one", {one.endpoint()});
  const uint32_t second = edge.add_pool("two", {two.endpoint()});
  edge.add_route("/*", first);
  edge.start();
  std::vector<Wire> wires;
  for (int i = 0; i < 20; ++i) wires.push_back(Wire::connect(edge.endpoint()));
  const auto ask_all = [&](size_t& twos) {
    for (Wire& wire : wires) {
      ASSERT_TRUE(wire.send(get("/")));
      const Answer answer = read_answer(wire);
      ASSERT_EQ(answer.status, 200);
      if (answer.body == "two") ++twos;
    }
  };
  size_t twos = 0;
  ask_all(twos);
  EXPECT_EQ(twos, 0u);
  for (int version = 0; version < 10; ++version) {
    edge.model.routes[0].what = RouteToPool{version % 2 == 0 ? second : first};
    ASSERT_TRUE(edge.publish());
    ask_all(twos);
  }
  edge.model.routes[0].what = RouteToPool{second};
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(edge.run_until([&] {
    twos = 0;
    ask_all(twos);
    return twos == wires.size();
  }));
  EXPECT_EQ(edge.metric("tidegate_l7_client_connections_total"), wires.size()) << "nobody had to connect again";
}

TEST(ProxyChanges, AListenerThatGoesFinishesItsConnectionsAndOneThatComesListens) {
  Origin origin(Origin::says("x"));
  Edge edge;
  Listener other;
  other.name = "other";
  other.bind = {*Endpoint::parse("127.0.0.2:0")};
  edge.model.listeners.push_back(other);
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  Wire kept = Wire::connect(edge.endpoint(1));
  kept.send(get("/"));
  EXPECT_EQ(read_answer(kept).status, 200);
  edge.model.listeners.pop_back();
  Listener third;
  third.name = "third";
  third.bind = {*Endpoint::parse("[::1]:0")};
  edge.model.listeners.push_back(third);
  ASSERT_TRUE(edge.publish());
  ASSERT_TRUE(edge.run_until([&] { return ask(edge.endpoint(1), get("/")).status == 200; }));
  kept.send(get("/"));
  const Answer last = read_answer(kept);
  EXPECT_EQ(last.status, 200);
  EXPECT_EQ(last.field("connection"), "close");
}

TEST(ProxyChanges, AVersionThatCannotBeBoundLeavesEverythingAsItWas) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  Listener taken;
  taken.name = "taken";
  taken.bind = {origin.endpoint()};
  edge.model.listeners.push_back(taken);
  const Result<void> refused = edge.publish();
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().message.find("listener taken"), std::string::npos) << refused.error().message;
  EXPECT_EQ(ask(edge.endpoint(), get("/")).status, 200);
}

TEST(ProxyChanges, WhatIsReadAtStartIsNamedWhenItChanges) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  nlohmann::json status;
  edge.proxy().add_status(status);
  EXPECT_EQ(status["needs_restart"], nlohmann::json::array());
  edge.model.nodes[0].l7.workers += 1;
  edge.model.nodes[0].cache.ram_bytes += 1;
  ASSERT_TRUE(edge.publish());
  edge.proxy().add_status(status);
  EXPECT_EQ(status["needs_restart"], nlohmann::json({"l7.workers", "cache.ram"}));
}

TEST(ProxyChanges, AutoNeedsNoRestartIfThatIsTheNumberThatRuns) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.model.nodes[0].l7.workers = 0;
  edge.start();
  nlohmann::json status;
  edge.proxy().add_status(status);
  const uint32_t cores = worker_count(0);
  EXPECT_EQ(status["workers"], cores);
  edge.model.nodes[0].l7.workers = cores;
  ASSERT_TRUE(edge.publish());
  edge.proxy().add_status(status);
  EXPECT_EQ(status["needs_restart"], nlohmann::json::array());
  edge.model.nodes[0].l7.workers = cores + 1;
  ASSERT_TRUE(edge.publish());
  edge.proxy().add_status(status);
  EXPECT_EQ(status["needs_restart"], nlohmann::json::array({"l7.workers"}));
}

TEST(ProxyDrain, RequestsUnderWayFinishAndTheRestIsClosed) {
  std::atomic<bool> release{false};
  Origin origin([&](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
    while (!release) std::this_thread::yield();
    return wire.send("half");
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.model.listeners[0].header_timeout_ms = 200;  // for a connection without a request so far
  edge.start();
  Wire busy = Wire::connect(edge.endpoint()), idle = Wire::connect(edge.endpoint());
  busy.send(get("/"));
  busy.read_until("half");
  bool drained = false;
  edge.proxy().drain([&] { drained = true; });
  EXPECT_TRUE(idle.at_end());
  EXPECT_FALSE(drained);
  release = true;
  EXPECT_EQ(busy.read_to_end(), "half");
  EXPECT_TRUE(edge.run_until([&] { return drained; }));
}

// Another process has the sockets. An idle client may be sending its next request at this moment.
TEST(ProxyLeave, AnIdleConnectionStaysForOneRequestMore) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.model.nodes[0].l7.drain_timeout_ms = 60'000;
  edge.start();
  Wire idle = Wire::connect(edge.endpoint()), fresh = Wire::connect(edge.endpoint());
  idle.send(get("/"));
  EXPECT_EQ(read_answer(idle).status, 200);
  ASSERT_TRUE(edge.run_until([&] { return edge.proxy().connections() == 2; }));
  ASSERT_FALSE(edge.proxy().sockets().empty());
  bool left = false;
  edge.proxy().leave([&] { left = true; });
  EXPECT_TRUE(edge.proxy().sockets().empty());
  for (Wire* wire : {&idle, &fresh}) {
    wire->send(get("/"));
    const std::string answer = wire->read_to_end();
    EXPECT_THAT(answer, ::testing::HasSubstr("HTTP/1.1 200"));
    EXPECT_THAT(answer, ::testing::HasSubstr("close"));
  }
  EXPECT_TRUE(edge.run_until([&] { return left; }));
}

// A connection without another request ends after its idle time.
TEST(ProxyLeave, AnIdleConnectionDoesNotKeepTheProcess) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.model.nodes[0].l7.drain_timeout_ms = 60'000;
  edge.model.listeners[0].idle_timeout_ms = 300;
  edge.start();
  Wire idle = Wire::connect(edge.endpoint());
  idle.send(get("/"));
  EXPECT_EQ(read_answer(idle).status, 200);
  bool left = false;
  edge.proxy().leave([&] { left = true; });
  EXPECT_TRUE(idle.at_end());
  EXPECT_TRUE(edge.run_until([&] { return left; }));
}

// It does not wait for header_timeout, and still less for drain_timeout.
TEST(ProxyDrain, ClientsWithoutAWholeRequestHaveTwoSeconds) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.model.nodes[0].l7.drain_timeout_ms = 60'000;
  edge.start();
  std::vector<Wire> wires;
  const std::string preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", settings("\0\0\0\4\0\0\0\0\0", 9);
  const std::string half_head("\0\0\1\1\1\0\0\0\1\x82", 10);  // HEADERS without END_HEADERS
  const std::vector<std::string> said{"", "GET / HTT", "PRI * HTT", preface, preface + settings + half_head};
  for (const std::string& bytes : said) {
    wires.push_back(Wire::connect(edge.endpoint()));
    if (!bytes.empty()) wires.back().send(bytes);
  }
  ASSERT_TRUE(edge.run_until([&] { return edge.proxy().connections() == said.size(); }));
  const auto began = std::chrono::steady_clock::now();
  bool drained = false;
  edge.proxy().drain([&] { drained = true; });
  EXPECT_EQ(read_answer(wires[1]).status, 408);
  wires[1].half_close();  // like a client that has read its last answer
  for (const size_t silent : {0, 2}) EXPECT_TRUE(wires[silent].at_end()) << silent;
  for (const size_t http2 : {3, 4}) EXPECT_FALSE(wires[http2].read_to_end().empty()) << "GOAWAY";
  EXPECT_TRUE(edge.run_until([&] { return drained; }));
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(8)) << "header_timeout is 10 s";
}

TEST(ProxyDrain, ClosesIdleConnectionsWhateverTheirOrder) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  std::vector<Wire> idle;
  for (int i = 0; i < 5; ++i) {
    idle.push_back(Wire::connect(edge.endpoint()));
    idle.back().send(get("/"));
    EXPECT_EQ(read_answer(idle.back()).status, 200);
  }
  bool drained = false;
  edge.proxy().drain([&] { drained = true; });
  EXPECT_TRUE(edge.run_until([&] { return drained; }));
  for (Wire& wire : idle) EXPECT_TRUE(wire.at_end());
}

TEST(ProxyExplain, DecidesAsTheProxyDoes) {
  Edge edge;
  const uint32_t pool = edge.add_pool("p", {*Endpoint::parse("127.0.0.1:1"), *Endpoint::parse("127.0.0.1:2")});
  edge.model.pools[pool].policy = PoolPolicy::consistent_hash;
  edge.add_route("/item/{id}", pool);
  edge.start();
  HttpRequest request;
  request.query = "client=192.0.2.1&url=http://a.test/item/7";
  const Result<nlohmann::json> answer = edge.proxy().explain(request);
  ASSERT_TRUE(answer);
  EXPECT_EQ((*answer)["listener"], "plain");
  EXPECT_EQ((*answer)["route"], "r1");
  EXPECT_EQ((*answer)["parameters"]["id"], "7");
  EXPECT_EQ((*answer)["eligible"].size(), 2u);
  EXPECT_TRUE((*answer)["backend"].is_string());
  request.query = "url=nonsense";
  EXPECT_FALSE(edge.proxy().explain(request));
}

TEST(ProxyExplain, AnHttpsUrlReachesAPlainListenerThroughTheTerminatorInFrontOfIt) {
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {*Endpoint::parse("127.0.0.1:1")}));
  HttpRequest request;
  request.query = "url=https://a.test/";
  edge.start();
  EXPECT_TRUE((*edge.proxy().explain(request))["listener"].is_null()) << "nobody in front is trusted";
  edge.model.listeners[0].trusted_proxies = {*Cidr::parse("192.0.2.0/24")};
  ASSERT_TRUE(edge.publish());
  EXPECT_EQ((*edge.proxy().explain(request))["listener"], "plain");
}

}  // namespace tidegate::l7::test::proxy_test
