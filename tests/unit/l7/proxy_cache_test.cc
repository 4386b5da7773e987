// SPDX-License-Identifier: Apache-2.0
// The proxy with its cache: which answers a purge by URL removes.
#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "l7/proxy.h"
#include "tests/unit/l7/state_dir.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::proxy_cache_test {

Purge purge_of(std::string url, uint64_t sequence = 0) {
  Purge purge;
  purge.sequence = sequence;
  purge.kind = PurgeKind::url;
  purge.value = std::move(url);
  return purge;
}

Origin::Handler fresh() {
  return [](const std::string&, Wire& wire) { return wire.send(Origin::ok("x", "Cache-Control: max-age=600\r\n")); };
}

// An edge whose routes are cached.
struct CachingEdge : Edge {
  explicit CachingEdge(const StateDir& state) {
    state_dir = state.path;
    model.nodes[0].cache.enabled = true;
    pool = add_pool("p", {origin.endpoint()});
  }
  Route& cached(const std::string& path) {
    Route& route = add_route(path, pool);
    route.cache.enabled = true;
    return route;
  }
  // True if the origin was asked for it.
  bool fetches(std::string_view target, std::string_view host = "a.test") {
    const size_t before = origin.requests();
    EXPECT_EQ(ask(endpoint(), get(target, host)).status, 200);
    return origin.requests() > before;
  }

  Origin origin{fresh()};
  uint32_t pool = 0;
};

// Like our own answers (share_test.cc). A hit waits for its client by itself, even if it has no body.
TEST(ProxyCache, PipelinedHitsThatAreReadLateAreAllAnsweredInOrder) {
  constexpr size_t kRequests = 4'000;
  const StateDir state;
  CachingEdge edge(state);
  const std::string page(5'000, 'p');
  Origin pages([&](const std::string&, Wire& wire) {
    return wire.send(Origin::ok(page, "Cache-Control: max-age=600\r\nETag: \"v\"\r\n"));
  });
  edge.model.pools[edge.pool].backends[0].port = pages.endpoint().port;
  edge.cached("/*");
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/page")).body, page);
  const auto whole = [](size_t i) { return i % 100 == 99; };
  const auto head_only = [&](size_t i) { return !whole(i) && i % 2 == 1; };
  std::string requests;
  for (size_t i = 0; i < kRequests; ++i) {
    requests += whole(i)       ? get("/page")
                : head_only(i) ? "HEAD /page HTTP/1.1\r\nHost: a.test\r\n\r\n"
                               : get("/page", "a.test", "If-None-Match: \"v\"\r\n");
  }
  Wire wire = Wire::connect(edge.endpoint(), 32 * 1024);
  std::thread sender([&] { wire.send(requests); });
  EXPECT_TRUE(edge.run_until(
      [&] { return edge.metric("tidegate_l7_requests_total{protocol=\"http/1.1\",status=\"3xx\"}") >= 10; }));
  size_t answered = 0;
  for (size_t i = 0; i < kRequests && answered == i; ++i) {
    const Answer answer = read_answer(wire, head_only(i));
    const int status = whole(i) || head_only(i) ? 200 : 304;
    answered += answer.complete && answer.status == status && (!whole(i) || answer.body == page) ? 1 : 0;
  }
  EXPECT_EQ(answered, kRequests);
  EXPECT_EQ(pages.requests(), 1u);
  wire.half_close();
  sender.join();
}

TEST(ProxyCache, WhatATrustedProxySaysOfTheTargetIsInTheKeyOrNotTold) {
  const StateDir state;
  CachingEdge edge(state);
  edge.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  Origin echo([](const std::string& head, Wire& wire) {
    return wire.send(Origin::ok(head, "Cache-Control: max-age=600\r\n"));
  });
  edge.model.pools[edge.pool].backends[0].port = echo.endpoint().port;
  edge.cached("/id").cache.key_query = {"id"};
  edge.cached("/*");
  edge.start();
  const auto said = [&](std::string_view target, std::string_view fields) {
    return ask(edge.endpoint(), get(target, "a.test", fields)).body;
  };
  const std::string https = "X-Forwarded-Proto: HTTPS\r\n";
  EXPECT_NE(said("/", https).find("\r\nx-forwarded-proto: https\r\n"), std::string::npos);
  EXPECT_NE(said("/", "").find("\r\nx-forwarded-proto: http\r\n"), std::string::npos);
  EXPECT_EQ(echo.requests(), 2u);
  EXPECT_NE(said("/odd", "X-Forwarded-Proto: wss\r\n").find("\r\nx-forwarded-proto: http\r\n"), std::string::npos);
  const std::string told =
      said("/more", "X-Forwarded-Host: other.test\r\nX-Forwarded-Port: 7\r\nForwarded: host=other.test\r\n");
  EXPECT_NE(told.find("\r\nx-forwarded-host: a.test\r\n"), std::string::npos) << told;
  EXPECT_EQ(told.find("\r\nx-forwarded-port"), std::string::npos) << told;
  EXPECT_EQ(told.find("\r\nforwarded"), std::string::npos) << told;

  said("/id?id=1", https);
  edge.proxy().purge(purge_of("https://a.test/id?id=1&utm=2"));
  const size_t before = echo.requests();
  said("/id?id=1", https);
  EXPECT_EQ(echo.requests(), before + 1);
}

TEST(ProxyCache, AClientThatLeavesBeforeTheHeadEndsItsFetchUnlessAnotherWaits) {
  const StateDir state;
  CachingEdge edge(state);
  std::atomic<int> asked{0}, cut{0};
  std::atomic<bool> answers{false};
  Origin slow([&](const std::string&, Wire& wire) {
    ++asked;
    if (answers) return wire.send(Origin::ok("late", "Cache-Control: max-age=600\r\n"));
    if (wire.at_end()) ++cut;
    return false;
  });
  edge.model.pools[edge.pool].backends[0].port = slow.endpoint().port;
  edge.cached("/*");
  edge.start();
  {
    Wire client = Wire::connect(edge.endpoint());
    client.send(get("/alone"));
    ASSERT_TRUE(edge.run_until([&] { return asked == 1; }));
    EXPECT_EQ(cut, 0);
  }
  EXPECT_TRUE(edge.run_until([&] { return cut == 1; })) << "the backend connection is closed at once";
  // Another client waits: the fetch continues without its first client, and ends when the second leaves as well.
  auto first = std::make_unique<Wire>(Wire::connect(edge.endpoint()));
  first->send(get("/shared"));
  ASSERT_TRUE(edge.run_until([&] { return asked == 2; }));
  auto second = std::make_unique<Wire>(Wire::connect(edge.endpoint()));
  second->send(get("/shared"));
  const auto open_clients = [&] { return edge.metric("tidegate_l7_client_connections"); };
  ASSERT_TRUE(edge.run_until([&] { return open_clients() == 2; }));
  first.reset();
  ASSERT_TRUE(edge.run_until([&] { return open_clients() == 1; }));
  EXPECT_EQ(cut, 1) << "the second client still waits";
  second.reset();
  EXPECT_TRUE(edge.run_until([&] { return cut == 2; }));
  answers = true;
  EXPECT_EQ(ask(edge.endpoint(), get("/shared")).body, "late");
  EXPECT_EQ(asked, 3);
}

// A request without Host gets the Host of the backend that is tried. By then the client whose request leads has left.
TEST(ProxyCache, AFetchWithoutHostIsTriedAgainAfterItsClientLeft) {
  const StateDir state;
  CachingEdge edge(state);
  std::atomic<int> asked{0};
  std::atomic<bool> answers{false};
  const auto handler = [&](const std::string&, Wire& wire) {
    if (asked++ > 0) return wire.send(Origin::ok("late", "Cache-Control: max-age=600\r\n"));
    while (!answers) std::this_thread::yield();
    return false;
  };
  Origin one(handler), other(handler);
  edge.add_route("/*", edge.add_pool("two", {one.endpoint(), other.endpoint()})).cache.enabled = true;
  edge.model.nodes[0].l7.access_log = state.path + "/access.log";
  edge.start();
  auto first = std::make_unique<Wire>(Wire::connect(edge.endpoint()));
  first->send("GET /shared HTTP/1.0\r\n\r\n");
  ASSERT_TRUE(edge.run_until([&] { return asked == 1; }));
  Wire second = Wire::connect(edge.endpoint());
  second.send("GET /shared HTTP/1.0\r\n\r\n");
  const auto open_clients = [&] { return edge.metric("tidegate_l7_client_connections"); };
  ASSERT_TRUE(edge.run_until([&] { return open_clients() == 2; }));
  first.reset();
  ASSERT_TRUE(edge.run_until([&] { return open_clients() == 1; }));
  answers = true;
  EXPECT_EQ(read_answer(second).body, "late");
  EXPECT_EQ(asked, 2);
}

TEST(ProxyCache, TagsEndHereUnlessTheRouteSendsThem) {
  const StateDir state;
  CachingEdge edge(state);
  Origin tagged([](const std::string& head, Wire& wire) {
    const bool is_private = head.find("/private") != std::string::npos;
    return wire.send(Origin::ok("x", std::string(is_private ? "Cache-Control: private" : "Cache-Control: max-age=600") +
                                         "\r\nCache-Tag: News, b\r\nSurrogate-Key: c d\r\nX-Kept: yes\r\n"));
  });
  edge.model.pools[edge.pool].backends[0].port = tagged.endpoint().port;
  edge.cached("/sent/*").cache.send_tags = true;
  edge.cached("/*");
  edge.add_route("/uncached/*", edge.pool);
  edge.start();
  for (const char* path : {"/a", "/private/a", "/uncached/a"}) {
    for (int i = 0; i < 2; ++i) {
      const Answer answer = ask(edge.endpoint(), get(path));
      EXPECT_EQ(answer.field("cache-tag") + answer.field("surrogate-key"), "") << path;
      EXPECT_EQ(answer.field("x-kept"), "yes") << path;
    }
  }
  for (int i = 0; i < 2; ++i) {
    const Answer answer = ask(edge.endpoint(), get("/sent/a"));
    EXPECT_EQ(answer.field("cache-tag"), "news, b");
    EXPECT_EQ(answer.field("surrogate-key"), "c d");
  }
  Purge purge;
  purge.kind = PurgeKind::tag;
  purge.value = "NEWS";
  const size_t before = tagged.requests();
  edge.proxy().purge(purge);
  ask(edge.endpoint(), get("/a"));
  ask(edge.endpoint(), get("/sent/a"));
  EXPECT_EQ(tagged.requests(), before + 2) << "tags are compared without case";
}

TEST(ProxyPurge, TakesBothSchemesWhereTheRouteSaysSo) {
  const StateDir state;
  CachingEdge edge(state);
  edge.model.listeners[0].trusted_proxies = {*Cidr::parse("127.0.0.0/8")};
  Route& both = edge.cached("/both/*");
  both.cache.purge_both_schemes = true;
  both.cache.key_query = {"id"};
  edge.cached("/*");
  edge.start();
  const auto fetches = [&](std::string_view target, const std::string& scheme) {
    const size_t before = edge.origin.requests();
    ask(edge.endpoint(), get(target, "a.test", "X-Forwarded-Proto: " + scheme + "\r\n"));
    return edge.origin.requests() > before;
  };
  for (const char* scheme : {"http", "https"}) {
    const std::string other = scheme == std::string("http") ? "https" : "http";
    for (const char* target : {"/both/a?id=1&x=2", "/one/a"}) {
      fetches(target, "http");
      fetches(target, "https");
      edge.proxy().purge(purge_of(scheme + std::string("://a.test") + target));
      EXPECT_TRUE(fetches(target, scheme)) << target;
      EXPECT_EQ(fetches(target, other), target[1] == 'b') << target;
    }
  }
}

TEST(ProxyPurge, TakesWhatTheRouteMadeOfTheQuery) {
  const StateDir state;
  CachingEdge edge(state);
  edge.cached("/id").cache.key_query = {"id"};
  edge.cached("/none").cache.ignore_query = true;
  edge.cached("/*");
  edge.start();
  for (const char* target : {"/id?id=1&utm=2", "/id?id=2", "/none?a=1", "/all?a=1", "/all?a=2"}) {
    EXPECT_TRUE(edge.fetches(target)) << target;
    EXPECT_FALSE(edge.fetches(target)) << target;
  }
  edge.proxy().purge(purge_of("http://a.test/id?utm=3&id=1"));
  EXPECT_TRUE(edge.fetches("/id?id=1"));
  EXPECT_FALSE(edge.fetches("/id?id=2"));
  edge.proxy().purge(purge_of("http://a.test/none?b=2"));
  EXPECT_TRUE(edge.fetches("/none"));
  edge.proxy().purge(purge_of("http://a.test/all?a=1"));
  EXPECT_TRUE(edge.fetches("/all?a=1"));
  EXPECT_FALSE(edge.fetches("/all?a=2"));
}

TEST(ProxyPurge, TakesEverySpellingOfTheSameUrl) {
  const StateDir state;
  CachingEdge edge(state);
  edge.cached("/*");
  edge.start();
  const auto refetched = [&](const std::string& url, std::string_view target, std::string_view host) {
    edge.fetches(target, host);
    EXPECT_FALSE(edge.fetches(target, host)) << url;
    edge.proxy().purge(purge_of(url));
    return edge.fetches(target, host);
  };
  EXPECT_TRUE(refetched("http://a.test/caf%c3%a9", "/caf%C3%A9", "a.test"));
  EXPECT_TRUE(refetched("http://a.test/%7Euser/./x", "/~user/x", "a.test"));
  EXPECT_TRUE(refetched("http://a.test", "/", "a.test"));
  EXPECT_TRUE(refetched("HTTP://A.test:80/b#part", "/b", "a.test"));
  EXPECT_TRUE(refetched("http://a.test./c", "/c", "a.test"));
  EXPECT_TRUE(refetched("http://a.test/d", "/d", "a.test."));
  EXPECT_TRUE(refetched("http://a.test.:8080/e", "/e", "a.test:8080"));
  EXPECT_TRUE(refetched("http://[::1]:80/f", "/f", "[::1]"));
  EXPECT_FALSE(refetched("http://b.test/g", "/g", "a.test"));
  EXPECT_FALSE(refetched("https://a.test/h", "/h", "a.test"));
  EXPECT_FALSE(refetched("http://a.test/%zz", "/i", "a.test"));
}

TEST(ProxyPurge, ReachesWhatIsOnDiskBeforeTheFirstVersionIsInForce) {
  const StateDir state;
  const auto make = [&state] {
    auto edge = std::make_unique<CachingEdge>(state);
    edge->cached("/id").cache.key_query = {"id"};
    return edge;
  };
  {
    const auto edge = make();
    edge->start();
    EXPECT_TRUE(edge->fetches("/id?id=1"));
    EXPECT_TRUE(edge->fetches("/id?id=2"));
  }
  const auto edge = make();
  edge->missed = {purge_of("http://a.test/id?utm=1&id=1", 1)};
  edge->start();
  ASSERT_TRUE(edge->run_until([&] {  // until the index is loaded, a miss proves nothing
    nlohmann::json status;
    edge->proxy().add_status(status);
    return status["cache"]["loading"] == false;
  }));
  EXPECT_TRUE(edge->fetches("/id?id=1"));
  EXPECT_FALSE(edge->fetches("/id?id=2"));
}

}  // namespace tidegate::l7::test::proxy_cache_test
