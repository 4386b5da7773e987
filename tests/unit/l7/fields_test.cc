// SPDX-License-Identifier: Apache-2.0
// Fields on their way through the proxy: their spelling, who sets them, and what the log says about refused requests.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "l7/observe/access_log.h"
#include "tests/unit/l7/log_file.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::fields_test {

bool has(const std::string& head, const std::string& line) {
  return head.find("\r\n" + line + "\r\n") != std::string::npos;
}

size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(FieldSpelling, Http1ToHttp1KeepsNamesAndReasonsAsTheyWereWritten) {
  Origin origin([](const std::string&, Wire& wire) {
    return wire.send("HTTP/1.1 200 Fine By Me\r\ncontent-LENGTH: 1\r\nX-oDD-Name: v\r\nSERVER: o\r\n\r\nx");
  });
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  const Answer answer = ask(edge.endpoint(), get("/", "a.test", "aCCept: */*\r\nX_mIne: 1\r\nSOAPAction: go\r\n"));
  EXPECT_TRUE(answer.spelt.starts_with("HTTP/1.1 200 Fine By Me\r\n")) << answer.spelt;
  for (const char* line : {"X-oDD-Name: v", "SERVER: o", "Content-Length: 1", "Via: 1.1 n1"}) {
    EXPECT_TRUE(has(answer.spelt, line)) << line << "\n" << answer.spelt;
  }
  EXPECT_NE(answer.spelt.find("\r\nDate: "), std::string::npos);
  EXPECT_NE(answer.spelt.find("\r\nX-Request-Id: "), std::string::npos);
  const std::string asked = origin.last_head();
  for (const char* line : {"Host: a.test", "aCCept: */*", "X_mIne: 1", "SOAPAction: go", "X-Forwarded-For: 127.0.0.1",
                           "X-Forwarded-Proto: http", "X-Forwarded-Host: a.test", "Via: 1.1 n1"}) {
    EXPECT_TRUE(has(asked, line)) << line << "\n" << asked;
  }
}

TEST(FieldSpelling, HitsJoinsAndRevalidatedAnswersKeepItToo) {
  const LogFile state;
  std::filesystem::create_directories(state.path);
  std::atomic<bool> release{false};
  Origin origin([&](const std::string& head, Wire& wire) {
    if (head.find("\r\nif-none-match: ") != std::string::npos) {
      return wire.send("HTTP/1.1 304 Not Modified\r\nETag: \"v\"\r\nX-nEW: 2\r\nCache-Control: max-age=60\r\n\r\n");
    }
    wire.send(
        "HTTP/1.1 200 Sure\r\nContent-Length: 2\r\nX-oDD: 1\r\neTAG: \"v\"\r\nCache-Control: max-age=60\r\n\r\na");
    while (!release) std::this_thread::yield();
    return wire.send("b");
  });
  Edge edge;
  edge.state_dir = state.path;
  edge.model.nodes[0].cache.enabled = true;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()})).cache.enabled = true;
  edge.start();
  Wire leader = Wire::connect(edge.endpoint()), joined = Wire::connect(edge.endpoint());
  leader.send(get("/"));
  const std::string led = leader.read_until("\r\n\r\n");
  joined.send(get("/"));
  const std::string shared = joined.read_until("\r\n\r\n");
  release = true;
  EXPECT_EQ(joined.read_exactly(2), "ab");
  EXPECT_EQ(origin.requests(), 1u);
  const std::string hit = ask(edge.endpoint(), get("/")).spelt;
  for (const std::string& head : {led, shared, hit}) {
    EXPECT_TRUE(head.starts_with("HTTP/1.1 200 Sure\r\n")) << head;
    for (const char* line : {"X-oDD: 1", "eTAG: \"v\"", "Cache-Control: max-age=60"}) {
      EXPECT_TRUE(has(head, line)) << line << "\n" << head;
    }
  }
  EXPECT_NE(hit.find("\r\nAge: "), std::string::npos) << hit;
  EXPECT_NE(hit.find("\r\nCache-Status: "), std::string::npos) << hit;
  const std::string renewed = ask(edge.endpoint(), get("/", "a.test", "Cache-Control: no-cache\r\n")).spelt;
  EXPECT_TRUE(has(renewed, "X-oDD: 1")) << renewed;
  EXPECT_TRUE(has(renewed, "X-nEW: 2")) << renewed;
  EXPECT_TRUE(renewed.starts_with("HTTP/1.1 200 Sure\r\n")) << renewed;
}

TEST(FieldEdits, WinOverWhatTheProxySetsAndAnEmptyValueRemoves) {
  Origin origin([](const std::string&, Wire& wire) {
    return wire.send(Origin::ok("x", "Server: o\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"));
  });
  Edge edge;
  Route& route = edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  route.request_headers = {{"X-Forwarded-For", "192.0.2.1"},
                           {"x-forwarded-proto", "https"},
                           {"X-Forwarded-Host", ""},
                           {"X-Request-Id", "mine"},
                           {"via", ""},
                           {"Host", "inner.test"}};
  route.response_headers = {{"Via", ""}, {"X-Request-Id", "theirs"}, {"server", ""}, {"Date", "never"}};
  edge.start();
  const Answer answer = ask(edge.endpoint(), get("/", "a.test", "Via: 1.1 before\r\nX-Forwarded-For: 6.6.6.6\r\n"));
  const std::string asked = origin.last_head();
  for (const char* line :
       {"X-Forwarded-For: 192.0.2.1", "x-forwarded-proto: https", "X-Request-Id: mine", "Host: inner.test"}) {
    EXPECT_TRUE(has(asked, line)) << line << "\n" << asked;
  }
  for (const char* name : {"x-forwarded-for", "x-forwarded-proto", "x-request-id", "host"}) {
    std::string lower = asked;
    for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    EXPECT_EQ(count(lower, "\r\n" + std::string(name) + ": "), 1u) << asked;
    EXPECT_EQ(count(lower, "\r\nx-forwarded-host: "), 0u) << asked;
    EXPECT_EQ(count(lower, "\r\nvia: "), 0u) << asked;
  }
  EXPECT_EQ(answer.field("via"), "");
  EXPECT_EQ(answer.field("server"), "");
  EXPECT_EQ(answer.field("date"), "never");
  EXPECT_EQ(count(answer.head, "\r\nx-request-id: "), 1u);
  EXPECT_EQ(answer.field("x-request-id"), "theirs");
}

TEST(FieldEdits, AListenerWithoutViaSaysNothingOfItself) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.model.listeners[0].via = false;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/")).field("via"), "");
  EXPECT_EQ(origin.last_head().find("Via"), std::string::npos);
  ask(edge.endpoint(), get("/", "a.test", "Via: 1.1 before\r\n"));
  EXPECT_TRUE(has(origin.last_head(), "Via: 1.1 before")) << "another's passes";
}

TEST(FieldLoops, EndWith508AfterABoundAndNotBefore) {
  Edge edge;
  edge.add_route("/*", edge.add_pool("self", {*Endpoint::parse("127.0.0.1:1")}));
  edge.start();
  const uint16_t port = edge.endpoint().port;
  edge.model.pools[0].backends[0].port = port;
  ASSERT_TRUE(edge.publish());
  Answer answer;
  EXPECT_TRUE(edge.run_until([&] { return (answer = ask(edge.endpoint(), get("/"))).status == 508; })) << answer.status;
  EXPECT_GE(edge.metric("tidegate_l7_failures_total{reason=\"loop_detected\"}"), 1u);
  // Entries of other proxies do not matter, up to the limit.
  edge.model.routes[0].what = RouteAnswer{204, {}};
  ASSERT_TRUE(edge.publish());
  EXPECT_TRUE(edge.run_until([&] { return ask(edge.endpoint(), get("/")).status == 204; }));
}

TEST(FieldLoops, ARequestThatComesByTwiceIsNoLoop) {
  Origin origin(Origin::says("x"));
  Edge edge;
  edge.add_route("/*", edge.add_pool("p", {origin.endpoint()}));
  edge.start();
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", "Via: 1.1 n1, 1.1 n1\r\nVia: 2.0 n1\r\n")).status, 200);
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", "Via: 1.1 n1, 1.1 n1, 1.1 n1 (x), 1.0 n1\r\n")).status, 508);
  EXPECT_EQ(ask(edge.endpoint(), get("/", "a.test", "Via: 1.1 n11, 1.1 n11, 1.1 xn1, 1.1 b, 1.1 n1\r\n")).status, 200);
}

TEST(RefusedRequests, AreLoggedWithTheirRequestLineAndTheReason) {
  const LogFile log;
  {
    Edge edge;
    edge.model.nodes[0].l7.access_log = log.path;
    edge.add_fixed("/*", 204);
    edge.start();
    ask(edge.endpoint(), "GET /fold?q HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n");
    ask(edge.endpoint(), "GET /caf\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n");
    ask(edge.endpoint(), "NOT-HTTP\r\n\r\n");
    ask(edge.endpoint(), get("/a/../../x"));
    ask(edge.endpoint(), "GET /" + std::string(9'000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n");
    ask(edge.endpoint(), "POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n");
  }
  const std::vector<nlohmann::json> lines = log.lines();
  const std::pair<const char*, const char*> expected[] = {{"obs_fold", "GET /fold?q HTTP/1.1"},
                                                          {"bad_target", "GET /caf\u00c3\u00a9 HTTP/1.1"},
                                                          {"bad_request_line", "NOT-HTTP"},
                                                          {"bad_path", "GET /a/../../x HTTP/1.1"}};
  ASSERT_GE(lines.size(), 5u);
  for (size_t i = 0; i < std::size(expected); ++i) {
    EXPECT_EQ(lines[i].value("failure", ""), "bad_request");
    EXPECT_EQ(lines[i].value("failure_detail", ""), expected[i].first) << lines[i];
    EXPECT_EQ(lines[i].value("request_line", ""), expected[i].second) << lines[i];
  }
  EXPECT_EQ(lines[4].value("failure_detail", ""), "target_too_long");
  EXPECT_EQ(lines[4].value("status", 0), 414);
  EXPECT_EQ(lines[4].value("cut", nlohmann::json()), nlohmann::json::array({"request_line"}));
}

TEST(RefusedRequests, ABackendsFaultIsLoggedWithItsName) {
  const LogFile log;
  Origin folding([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 1\r\n\r\nx");
    return false;
  });
  Edge plain;  // answers a TLS handshake with 400 in plain text
  plain.add_fixed("/*", 204);
  plain.start();
  {
    Edge edge;
    edge.model.nodes[0].l7.access_log = log.path;
    edge.add_route("/fold", edge.add_pool("fold", {folding.endpoint()}));
    edge.add_route("/tls", edge.add_pool("tls", {plain.endpoint()}));
    edge.model.pools[1].tls = true;
    edge.start();
    EXPECT_EQ(ask(edge.endpoint(), get("/fold")).status, 502);
    EXPECT_EQ(ask(edge.endpoint(), get("/tls")).status, 502);
  }
  const std::vector<nlohmann::json> lines = log.lines();
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].value("failure", ""), "bad_response");
  EXPECT_EQ(lines[0].value("failure_detail", ""), "obs_fold");
  EXPECT_EQ(lines[1].value("failure", ""), "tls_failed");
  EXPECT_NE(lines[1].value("failure_detail", ""), "") << lines[1];
}

TEST(LogRotation, NeitherRenamingNorCopyingAndTruncatingLosesALine) {
  const LogFile log;
  Edge edge;
  edge.model.nodes[0].l7.access_log = log.path;
  edge.add_fixed("/*", 204);
  edge.start();
  const auto lines_of = [](const std::string& path) {
    std::ifstream file(path);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    EXPECT_EQ(text.find('\0'), std::string::npos) << "a hole";
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  };
  Wire wire = Wire::connect(edge.endpoint());
  const auto ask_some = [&](size_t requests) {
    for (size_t i = 0; i < requests; ++i) {
      wire.send(get("/"));
      EXPECT_EQ(read_answer(wire).status, 204);
    }
  };
  ask_some(50);
  ASSERT_TRUE(edge.run_until([&] { return lines_of(log.path) == 50; }));
  // copytruncate: later lines are at the new end of the file.
  std::filesystem::copy_file(log.path, log.path + ".1");
  std::filesystem::resize_file(log.path, 0);
  ask_some(20);
  ASSERT_TRUE(edge.run_until([&] { return lines_of(log.path) == 20; }));
  // The file is renamed and the proxy is told, while lines keep coming.
  ask_some(30);
  std::filesystem::rename(log.path, log.path + ".2");
  ask_some(30);
  edge.proxy().reopen_log();
  ask_some(30);
  EXPECT_TRUE(edge.run_until(
      [&] { return std::filesystem::exists(log.path) && lines_of(log.path) + lines_of(log.path + ".2") == 110; }));
  for (const char* suffix : {".1", ".2"}) std::filesystem::remove(log.path + suffix);
}

}  // namespace tidegate::l7::test::fields_test
