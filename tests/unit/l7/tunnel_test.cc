// SPDX-License-Identifier: Apache-2.0
// Tunnels: upgrades that a pool allows, and WebSockets of HTTP/2 clients (RFC 8441).
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <mutex>

#include "conf/model.h"
#include "conf/model/pool.h"
#include "l7/exchange/failure.h"
#include "l7/exchange/websocket.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/http2_origin.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::tunnel_test {

std::string upgrade_to(std::string_view protocol, std::string_view more_fields = "") {
  return get("/", "a.test",
             "Connection: Upgrade\r\nUpgrade: " + std::string(protocol) + "\r\n" + std::string(more_fields));
}

std::string switched_to(std::string_view protocol, std::string_view more_fields = "") {
  return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + std::string(protocol) + "\r\n" +
         std::string(more_fields) + "\r\n";
}

std::string value_of(const std::string& head, const std::string& lower_name) {
  const size_t at = head.find("\r\n" + lower_name + ": ");
  if (at == std::string::npos) return {};
  const size_t begin = at + lower_name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

// The answer of a WebSocket origin to the handshake in `head`; nothing for any other request.
std::string websocket_answer(const std::string& head) {
  const std::string key = value_of(head, "sec-websocket-key");
  if (!head.starts_with("GET ") || value_of(head, "upgrade") != "websocket" || key.size() != 24) return {};
  return switched_to("websocket", "Sec-WebSocket-Accept: " + websocket_accept(key) + "\r\n");
}

Http2Client::Fields connect_to(const std::string& protocol, const std::string& path = "/") {
  Http2Client::Fields fields = Http2Client::request(path, "CONNECT");
  fields.insert(fields.begin() + 1, {":protocol", protocol});
  return fields;
}

class Tunnel : public ::testing::Test {
 protected:
  Pool& add(const Endpoint& origin) {
    const uint32_t pool = edge_.add_pool("p", {origin});
    edge_.add_route("/*", pool);
    return edge_.model.pools[pool];
  }
  void start(const Endpoint& origin, std::vector<std::string> upgrades = {}) {
    add(origin).upgrades = std::move(upgrades);
    edge_.start();
  }
  uint64_t failures(Failure failure) const {
    return edge_.metric(std::string("tidegate_l7_failures_total{reason=\"") + info(failure).name + "\"}");
  }
  // The status of the answer to a request that opens no tunnel.
  std::string status_of(const Http2Client::Fields& fields) {
    Http2Client client(edge_.endpoint());
    const int32_t id = client.submit_fed(fields);
    EXPECT_TRUE(client.run_until([&] { return client.result(id).answered; }));
    return client.result(id).fields[":status"];
  }
  uint64_t opened() const { return edge_.metric("tidegate_l7_tunnels_opened_total"); }
  bool all_closed() {
    return edge_.run_until([&] { return edge_.metric("tidegate_l7_tunnels_closed_total") == opened(); });
  }
  Edge edge_;
};

TEST(WebSocket, AnswersTheKeyOfTheSpecification) {
  EXPECT_EQ(websocket_accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");  // RFC 6455 §1.3
  EXPECT_EQ(websocket_key({0, 0}), "AAAAAAAAAAAAAAAAAAAAAA==");
}

TEST_F(Tunnel, OpensForAProtocolThatThePoolAllows) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (value_of(head, "upgrade") != "Echo/1") return wire.send(Origin::ok("plain"));
    wire.send(switched_to("echo/1") + "welcome ");
    const std::string got = wire.read_to_end();
    return wire.send("back " + got) && false;
  });
  start(origin.endpoint(), {"echo/1"});
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(upgrade_to("Echo/1"));
  EXPECT_EQ(read_answer(wire).status, 101);
  EXPECT_EQ(wire.read_exactly(8), "welcome ");
  wire.send("ping");
  wire.half_close();
  EXPECT_EQ(wire.read_to_end(), "back ping");
  EXPECT_TRUE(all_closed());
  EXPECT_EQ(opened(), 1u);
  for (const char* other : {"echo", "echo/2", "h2c", "echo/1, websocket", "websocket, echo/1", "echo/1/2", "/", ""}) {
    EXPECT_EQ(ask(edge_.endpoint(), upgrade_to(other)).body, "plain") << other;
  }
  EXPECT_EQ(ask(edge_.endpoint(), upgrade_to("echo/1", "Upgrade: websocket\r\n")).body, "plain");
  EXPECT_EQ(opened(), 1u);
}

TEST_F(Tunnel, OpensAfterARequestWithABody) {
  Origin origin([](const std::string&, Wire& wire) {
    EXPECT_EQ(wire.read_until("0\r\n\r\n"), "2\r\nhi\r\n0\r\n\r\n");
    wire.send(switched_to("echo"));
    return wire.send("back " + wire.read_exactly(4)) && false;
  });
  start(origin.endpoint(), {"echo"});
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(
      "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\nTransfer-Encoding: chunked\r\n\r\n"
      "2\r\nhi\r\n0\r\n\r\n");
  EXPECT_EQ(read_answer(wire).status, 101);
  wire.send("ping");
  EXPECT_EQ(wire.read_to_end(), "back ping") << "without a chunk's frame";
}

TEST_F(Tunnel, DoesNotOpenForAnotherProtocolThanTheOneAskedFor) {
  Origin origin([](const std::string&, Wire& wire) { return wire.send(switched_to("h2c")) && !wire.at_end(); });
  start(origin.endpoint(), {"echo"});
  EXPECT_EQ(ask(edge_.endpoint(), upgrade_to("echo")).status, 502);
  EXPECT_EQ(ask(edge_.endpoint(), upgrade_to("websocket")).status, 502);
  EXPECT_EQ(failures(Failure::bad_response), 2u);
  EXPECT_EQ(opened(), 0u);
}

TEST_F(Tunnel, DoesNotOpenBeforeTheRequestHasEnded) {
  Origin origin([](const std::string&, Wire& wire) { return wire.send(switched_to("echo")) && !wire.at_end(); });
  start(origin.endpoint(), {"echo"});
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\nContent-Length: 9\r\n\r\nhalf");
  EXPECT_EQ(read_answer(wire).status, 502);
  EXPECT_EQ(failures(Failure::bad_response), 1u);
}

TEST_F(Tunnel, CarriesAWebSocketOfAnHttp2ClientToAnHttp1Backend) {
  Origin origin([](const std::string& head, Wire& wire) {
    const std::string answer = websocket_answer(head);
    if (answer.empty()) return wire.send(Origin::ok("no handshake"));
    wire.send(answer + "welcome ");
    const std::string got = wire.read_to_end();
    return wire.send("back " + got) && false;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  Http2Client::Fields fields = connect_to("WebSocket", "/chat?room=1");
  fields.emplace_back("sec-websocket-version", "13");
  fields.emplace_back("sec-websocket-key", "the client's own, which means nothing");
  const int32_t id = client.submit_fed(fields);
  StreamResult& result = client.result(id);
  ASSERT_TRUE(client.run_until([&] { return result.body == "welcome "; }));
  EXPECT_EQ(nghttp2_session_get_remote_settings(client.session(), NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL), 1u);
  EXPECT_EQ(result.fields[":status"], "200");
  for (const char* name : {"upgrade", "connection", "sec-websocket-accept", "content-length"}) {
    EXPECT_EQ(result.fields.count(name), 0u) << name;
  }
  const std::string head = origin.last_head();
  EXPECT_TRUE(head.starts_with("GET /chat?room=1 HTTP/1.1\r\n")) << head;
  EXPECT_NE(head.find("\r\nConnection: Upgrade\r\n"), std::string::npos) << head;
  EXPECT_EQ(head.find("Transfer-Encoding"), std::string::npos) << head;
  EXPECT_EQ(opened(), 1u);
  client.feed(id, "ping ", false);
  client.feed(id, "pong", true);  // END_STREAM half-closes towards the backend, which can still answer
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(result.body, "welcome back ping pong");
  EXPECT_EQ(result.closed, uint32_t{NGHTTP2_NO_ERROR});
  EXPECT_TRUE(all_closed());
}

TEST_F(Tunnel, IsRefusedWhereAnHttp2ClientCannotHaveIt) {
  std::mutex mutex;
  std::string answer;
  const auto answer_with = [&](std::string text) {
    const std::lock_guard held(mutex);
    answer = std::move(text);
  };
  Origin origin([&](const std::string&, Wire& wire) {
    const std::string text = (std::lock_guard(mutex), answer);
    return wire.send(text) && false;
  });
  Http2Origin modern([](const Http2Origin::Request&) { return Http2Origin::Answer(); });
  add(origin.endpoint()).upgrades = {"echo"};
  const uint32_t http2 = edge_.add_pool("http2", {modern.endpoint()});
  edge_.model.pools[http2].protocol = BackendProtocol::h2;
  edge_.add_route("/http2", http2);
  edge_.add_fixed("/fixed", 200);
  edge_.start();
  EXPECT_EQ(status_of(connect_to("other")), "501") << "the pool does not allow it";
  EXPECT_EQ(status_of(connect_to("h2c")), "501");
  EXPECT_EQ(status_of(connect_to("other", "/http2")), "501");
  EXPECT_EQ(status_of(connect_to("websocket", "/fixed")), "501") << "200 would say that the tunnel stands";
  answer_with(Origin::ok("a page"));
  EXPECT_EQ(status_of(connect_to("websocket")), "501") << "the backend does not speak it";
  EXPECT_EQ(failures(Failure::upgrade_refused), 5u);
  answer_with(switched_to("websocket", "Sec-WebSocket-Accept: " + websocket_accept("another key") + "\r\n"));
  EXPECT_EQ(status_of(connect_to("websocket")), "502");
  answer_with(switched_to("websocket"));
  EXPECT_EQ(status_of(connect_to("websocket")), "502");
  answer_with("HTTP/1.1 101 Switching Protocols\r\n\r\n");
  EXPECT_EQ(status_of(connect_to("echo")), "502");
  EXPECT_EQ(failures(Failure::bad_response), 3u);
  answer_with("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n");
  EXPECT_EQ(status_of(connect_to("websocket")), "403");
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_failures_total{pool=\"p\",backend=\"b1\"}"), 0u);
  EXPECT_EQ(opened(), 0u);
}

TEST_F(Tunnel, NeedsAWellFormedExtendedConnect) {
  Origin origin(Origin::says("reached"));
  start(origin.endpoint());
  const auto refused = [&](const Http2Client::Fields& fields) {
    Http2Client client(edge_.endpoint(), true);
    const int32_t id = client.submit_fed(fields);
    client.run_until([&] { return client.result(id).answered || client.result(id).closed; });
    const std::string status = client.result(id).fields[":status"];
    return status.empty() || status == "400";  // nghttp2 resets some of them
  };
  Http2Client::Fields get = connect_to("websocket");
  get[0].second = "GET";
  EXPECT_TRUE(refused(get));
  Http2Client::Fields with_length = connect_to("websocket");
  with_length.emplace_back("content-length", "3");
  EXPECT_TRUE(refused(with_length));
  Http2Client::Fields without_path = connect_to("websocket");
  without_path.pop_back();
  EXPECT_TRUE(refused(without_path));
  EXPECT_TRUE(refused(connect_to("web socket")));
  Http2Client::Fields old = {{":method", "CONNECT"}, {":authority", "a.test:443"}};
  EXPECT_EQ(status_of(old), "405");
  EXPECT_EQ(origin.requests(), 0u);
}

TEST_F(Tunnel, EndsForTheBackendWhenAnHttp2ClientResetsIt) {
  std::atomic<bool> ended{false};
  Origin origin([&](const std::string& head, Wire& wire) {
    wire.send(websocket_answer(head));
    ended = wire.at_end();
    return false;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit_fed(connect_to("websocket"));
  ASSERT_TRUE(client.run_until([&] { return client.result(id).head_ended; }));
  nghttp2_submit_rst_stream(client.session(), NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  client.send_all();
  EXPECT_TRUE(edge_.run_until([&] { return ended.load(); }));
  EXPECT_TRUE(all_closed());
}

TEST_F(Tunnel, OfAnHttp2ClientMayBeSilentForATimeOfItsOwn) {
  Origin origin(
      [](const std::string& head, Wire& wire) { return wire.send(websocket_answer(head)) && !wire.at_end(); });
  Pool& pool = add(origin.endpoint());
  pool.tunnel_timeout_ms = 50;
  edge_.start();
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit_fed(connect_to("websocket"));
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).fields[":status"], "200");
  EXPECT_FALSE(client.result(id).answered) << "it is broken off";
  EXPECT_EQ(failures(Failure::tunnel_timeout), 1u);
}

}  // namespace tidegate::l7::test::tunnel_test
