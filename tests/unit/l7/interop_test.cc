// SPDX-License-Identifier: Apache-2.0
// Messages that real clients and backends send, and the requirements of RFC 9110 for our own answers.
#include <gtest/gtest.h>

#include <filesystem>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "core/crypto.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::interop_test {

// An origin that answers with these bytes, and the edge in front of it.
struct Relay {
  explicit Relay(std::string bytes, bool close = false)
      : origin(
            [bytes = std::move(bytes), close](const std::string&, Wire& wire) { return wire.send(bytes) && !close; }) {
    edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
    edge.start();
  }
  Answer get_one() { return ask(edge.endpoint(), get("/")); }
  Origin origin;
  Edge edge;
};

TEST(OddBackends, AStatusLineWithoutAPhraseIsTaken) {
  const Answer answer = Relay("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok").get_one();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "ok");
}

TEST(OddBackends, StatusesFrom600To999ArePassedOn) {
  for (const char* status : {"600", "777", "999"}) {
    const Answer answer = Relay("HTTP/1.1 " + std::string(status) + " Odd\r\nContent-Length: 2\r\n\r\nok").get_one();
    EXPECT_EQ(std::to_string(answer.status), status);
    EXPECT_EQ(answer.body, "ok");
  }
}

TEST(OddBackends, MayHaveManyFieldsAndManyConnectionLinesOfWhichNoNominatedFieldPasses) {
  std::string fields;
  for (int i = 0; i < 300; ++i) fields += "X-" + std::to_string(i) + ": v\r\n";
  for (int i = 0; i < 7; ++i) fields += "Connection: X-" + std::to_string(i) + "\r\n";
  const Answer answer = Relay("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + fields + "\r\n").get_one();
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.field("x-299"), "v");
  for (int i = 0; i < 7; ++i) EXPECT_EQ(answer.field("x-" + std::to_string(i)), "") << i;
}

TEST(OddBackends, NoContentOfA205ReachesTheClientNorTheNextAnswer) {
  std::atomic<int> asked{0};
  Origin origin([&](const std::string&, Wire& wire) {
    return wire.send(++asked % 2 == 1 ? "HTTP/1.1 205 Reset Content\r\nContent-Length: 3\r\n\r\nxyz"
                                      : "HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
  });
  Edge edge;
  edge.add_fixed("/fixed", 205, "no such thing");
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  for (const char* path : {"/a", "/b", "/fixed", "/a"}) {
    wire.send(get(path));
    const Answer answer = read_answer(wire);
    EXPECT_EQ(answer.status, 205) << path;
    EXPECT_EQ(answer.field("content-length"), "0");
    EXPECT_EQ(answer.field("transfer-encoding"), "");
  }
}

TEST(OddBackends, ARelayed426KeepsItsUpgrade) {
  const Answer answer =
      Relay("HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: TLS/1.3\r\nContent-Length: 0\r\n\r\n")
          .get_one();
  EXPECT_EQ(answer.status, 426);
  EXPECT_EQ(answer.field("upgrade"), "tls/1.3");
  EXPECT_EQ(answer.field("connection"), "upgrade");
}

TEST(OddClients, MayHaveAnEmptyPortInHost) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).hosts = {"a.test"};
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/", "A.test:")).status, 200);
  EXPECT_NE(origin.last_head().find("\r\nHost: A.test\r\n"), std::string::npos) << origin.last_head();
}

TEST(OddClients, TheTargetOfAnAbsoluteFormWinsOverHost) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_fixed("/*", 403).hosts = {"inner.test"};
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).hosts = {"a.test"};
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), "GET http://a.test/x HTTP/1.1\r\nHost: inner.test\r\n\r\n").status, 200);
  EXPECT_TRUE(origin.last_head().starts_with("GET /x HTTP/1.1\r\nHost: a.test\r\n")) << origin.last_head();
  EXPECT_EQ(origin.last_head().find("inner"), std::string::npos) << "no reader behind us sees two hosts";
  EXPECT_EQ(ask(edge.endpoint(), "GET http://inner.test/x HTTP/1.1\r\nHost: a.test\r\n\r\n").status, 403);
  EXPECT_EQ(ask(edge.endpoint(), "GET http://a.test/x HTTP/1.1\r\nHost: a test\r\n\r\n").status, 400);
}

TEST(OddClients, HaveAsManyFieldsAsTheListenerTakes) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.model.listeners[0].max_fields = 150;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  const auto with = [](int fields) {
    std::string text;
    for (int i = 0; i < fields; ++i) text += "X-" + std::to_string(i) + ": v\r\n";
    return get("/", "a.test", text);
  };
  EXPECT_EQ(ask(edge.endpoint(), with(149)).status, 200);
  EXPECT_NE(origin.last_head().find("\r\nX-148: v\r\n"), std::string::npos);
  EXPECT_EQ(ask(edge.endpoint(), with(150)).status, 431);
}

TEST(OddClients, OfHttp10WithoutHostAreSentToTheBackendsOwnName) {
  Origin one(Origin::says("x")), two(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {one.endpoint(), two.endpoint()}));
  edge.add_route("/named", edge.add_pool("named", {one.endpoint()}));
  edge.model.pools[1].tls_server_name = "origin.test";
  edge.start();
  for (int i = 0; i < 4; ++i) EXPECT_EQ(ask(edge.endpoint(), "GET / HTTP/1.0\r\n\r\n").status, 200);
  for (const Origin* origin : {&one, &two}) {
    ASSERT_GT(origin->requests(), 0u);
    EXPECT_NE(origin->last_head().find("\r\nHost: " + origin->endpoint().to_string() + "\r\n"), std::string::npos)
        << origin->last_head();
    EXPECT_EQ(origin->last_head().find("X-Forwarded-Host"), std::string::npos) << "nobody said one";
  }
  EXPECT_EQ(ask(edge.endpoint(), "GET /named HTTP/1.0\r\n\r\n").status, 200);
  EXPECT_NE(one.last_head().find("\r\nHost: origin.test\r\n"), std::string::npos) << one.last_head();
}

TEST(OddClients, AWebSocketHandshakeThatExpectsContinueGetsIt) {
  Origin origin([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
    return wire.send(wire.read_exactly(4)) && false;
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  wire.send(get("/", "a.test", "Connection: Upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n"));
  EXPECT_EQ(read_answer(wire).status, 100);
  EXPECT_EQ(read_answer(wire).status, 101);
  wire.send("ping");
  EXPECT_EQ(wire.read_to_end(), "ping");
}

TEST(OwnAnswers, A405NamesTheMethodsOfEveryRouteThatWouldHaveTakenThePath) {
  Edge edge;
  edge.add_fixed("/a", 204).methods = {"GET"};
  edge.add_fixed("/{id}", 204).methods = {"PUT", "GET"};
  edge.add_fixed("/other", 204).methods = {"DELETE"};
  edge.start();
  const Answer refused = ask(edge.endpoint(), "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(refused.status, 405);
  EXPECT_EQ(refused.field("allow"), "get, head, put");
  const Answer connect = ask(edge.endpoint(), "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n");
  EXPECT_EQ(connect.status, 405);
  EXPECT_NE(connect.head.find("\r\nallow: \r\n"), std::string::npos) << connect.head;
}

TEST(OwnAnswers, ARouteForGetTakesHead) {
  Origin origin(
      [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"); });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).methods = {"GET"};
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
  EXPECT_EQ(read_answer(wire, true).status, 200);
  EXPECT_TRUE(origin.last_head().starts_with("HEAD / ")) << origin.last_head();
}

TEST(OwnAnswers, ARefusedHeadHasNoBody) {
  Edge edge;
  edge.add_fixed("/*", 204);
  edge.start();
  const std::pair<int, std::string> refused[] = {
      {400, "HEAD / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n"},
      {414, "HEAD /" + std::string(9'000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n"},
      {431, "HEAD / HTTP/1.1\r\nHost: a\r\nA: " + std::string(40'000, 'a') + "\r\n\r\n"},
      {417, "HEAD / HTTP/1.1\r\nHost: a\r\nExpect: a pony\r\n\r\n"},
      {400, "HEAD /../.. HTTP/1.1\r\nHost: a\r\n\r\n"},
  };
  for (const auto& [status, request] : refused) {
    Wire wire = Wire::connect(edge.endpoint());
    wire.send(request);
    EXPECT_EQ(read_answer(wire, true).status, status);
    EXPECT_EQ(wire.read_to_end(), "") << status;
  }
}

TEST(OwnAnswers, APrefixRouteStandsForThePrefixItself) {
  Edge edge;
  edge.add_fixed("/v2/*", 201);
  edge.add_fixed("/{id}", 202);
  edge.add_fixed("/exact", 203);
  edge.add_fixed("/exact/*", 204);
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/v2")).status, 201);
  EXPECT_EQ(ask(edge.endpoint(), get("/v2/")).status, 201);
  EXPECT_EQ(ask(edge.endpoint(), get("/v2?x")).status, 201);
  EXPECT_EQ(ask(edge.endpoint(), get("/v2x")).status, 202);
  EXPECT_EQ(ask(edge.endpoint(), get("/exact")).status, 203);
  EXPECT_EQ(ask(edge.endpoint(), get("/exact/")).status, 204);
}

TEST(OwnAnswers, RedirectsKeepWhatTheyAreToldToAndNeedNoHost) {
  Edge edge;
  const auto redirect = [&](const std::string& path, const std::string& to, uint16_t status) {
    edge.add_fixed(path, status).what = RouteRedirect{to, status};
  };
  redirect("/port/*", "http://{authority}/new{query}", 303);
  redirect("/old/*", "https://{host}{path}", 308);
  redirect("/{query}/param", "/by/{query}", 302);
  redirect("/v1/*", "/v2{rest}{query}", 301);
  redirect("/strip/*", "/{rest}", 301);
  redirect("/same/*", "{path}", 301);
  redirect("/cdn/*", "//cdn.a.test{rest}", 301);
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/strip/a/b")).field("location"), "/a/b");
  EXPECT_EQ(ask(edge.endpoint(), get("/strip/evil.test/x")).field("location"), "/evil.test/x") << "not another host";
  EXPECT_EQ(ask(edge.endpoint(), get("//same/x")).field("location"), "/same/x");
  EXPECT_EQ(ask(edge.endpoint(), get("/cdn/x")).field("location"), "//cdn.a.test/x") << "the document names it";
  EXPECT_EQ(ask(edge.endpoint(), get("/v1/a/b?c=d")).field("location"), "/v2/a/b?c=d");
  EXPECT_EQ(ask(edge.endpoint(), get("/v1")).field("location"), "/v2");
  EXPECT_EQ(ask(edge.endpoint(), get("/v1/")).field("location"), "/v2/");
  EXPECT_EQ(ask(edge.endpoint(), get("/v1//evil.test")).field("location"), "/v2/evil.test");
  const Answer answer = ask(edge.endpoint(), get("/port/x?a=b&c", "a.test:8080"));
  EXPECT_EQ(answer.status, 303);
  EXPECT_EQ(answer.field("location"), "http://a.test:8080/new?a=b&c");
  EXPECT_EQ(ask(edge.endpoint(), get("/port/x")).field("location"), "http://a.test/new");
  EXPECT_EQ(ask(edge.endpoint(), get("/mine/param?x")).field("location"), "/by/mine") << "the path's parameter first";
  const std::string bare = "GET /old/x HTTP/1.0\r\n\r\n";
  EXPECT_EQ(ask(edge.endpoint(), bare).field("location"), "https://127.0.0.1/old/x") << "the address connected to";
  EXPECT_EQ(ask(edge.endpoint(), "GET /port/x HTTP/1.0\r\n\r\n").field("location"),
            "http://" + edge.endpoint().to_string() + "/new");
  edge.model.listeners[0].server_name = "www.a.test";
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(
      edge.run_until([&] { return ask(edge.endpoint(), bare).field("location") == "https://www.a.test/old/x"; }));
}

// The interim answers, as statuses and values of Link.
std::string interim_of(Wire& wire) {
  std::string out;
  for (;;) {
    const Answer answer = read_answer(wire);
    out += std::to_string(answer.status) + " " + answer.field("link") + ";";
    if (answer.status >= 200 || answer.status == 0) return out;
  }
}

TEST(InterimAnswers, ArePassedOnButNotToHttp10) {
  Origin origin([](const std::string& head, Wire& wire) {
    wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Still At It\r\n\r\n");
    wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nServer: o\r\n\r\n");
    return wire.send(Origin::ok(head.substr(0, 3)));
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).response_headers = {{"Server", ""}};
  edge.start();
  Wire wire = Wire::connect(edge.endpoint());
  wire.send(get("/"));
  EXPECT_EQ(read_answer(wire).status, 102);
  const Answer hints = read_answer(wire);
  EXPECT_EQ(hints.status, 103);
  EXPECT_EQ(hints.field("link"), "</a.css>");
  EXPECT_EQ(hints.field("x-hop"), "");
  EXPECT_EQ(hints.field("server"), "") << "the route removes it";
  EXPECT_EQ(hints.field("content-length"), "");
  EXPECT_EQ(read_answer(wire).body, "GET");
  wire.send(get("/"));
  EXPECT_EQ(interim_of(wire), "102 ;103 </a.css>;200 ;") << "on a kept connection too";
  wire.send(get("/"));
  EXPECT_TRUE(read_answer(wire).spelt.starts_with("HTTP/1.1 102 Still At It\r\n"));
  EXPECT_EQ(interim_of(wire), "103 </a.css>;200 ;");
  Wire old = Wire::connect(edge.endpoint());
  old.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
  EXPECT_EQ(interim_of(old), "200 ;");
}

TEST(InterimAnswers, ArePassedOnWhileTheCacheIsFilled) {
  const std::string state = std::filesystem::temp_directory_path() / ("tidegate-hints-" + hex_encode(random_bytes(8)));
  std::filesystem::create_directories(state);
  {
    Origin origin([](const std::string&, Wire& wire) {
      wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
      return wire.send(Origin::ok("x", "Cache-Control: max-age=60\r\n"));
    });
    Edge edge;
    edge.state_dir = state;
    edge.model.nodes[0].cache.enabled = true;
    edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).cache.enabled = true;
    edge.start();
    Wire wire = Wire::connect(edge.endpoint());
    wire.send(get("/"));
    EXPECT_EQ(interim_of(wire), "103 </a.css>;200 ;");
    wire.send(get("/"));
    EXPECT_EQ(interim_of(wire), "200 ;") << "a hit has none";
    EXPECT_EQ(origin.requests(), 1u);
  }
  std::filesystem::remove_all(state);
}

}  // namespace tidegate::l7::test::interop_test
