// SPDX-License-Identifier: Apache-2.0
// Tunnels to backends that speak HTTP/2: extended CONNECT (RFC 8441), and what is done if they do not allow it.
#include <fmt/format.h>

#include <array>
#include <functional>
#include <random>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "core/tls.h"
#include "l7/exchange/websocket.h"
#include "tests/unit/l7/certificates.h"
#include "tests/unit/l7/http2_backend.h"

namespace tidegate::l7::test::http2_tunnel_test {

constexpr std::string_view kKey = "dGhlIHNhbXBsZSBub25jZQ==",
                           kAccept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";  // RFC 6455 §1.3

std::string upgrade(std::string_view path, std::string_view protocol = "websocket", std::string_view key = kKey) {
  return get(path, "a.test",
             fmt::format("Connection: Upgrade\r\nUpgrade: {}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n"
                         "Sec-WebSocket-Protocol: chat\r\n",
                         protocol, key));
}

Http2Fields connect_by(const std::string& protocol, const std::string& path) {
  Http2Fields fields = Http2Client::request(path, "CONNECT");
  fields.insert(fields.begin() + 1, {":protocol", protocol});
  fields.emplace_back("sec-websocket-version", "13");
  fields.emplace_back("sec-websocket-protocol", "chat");
  return fields;
}

// The answer of an HTTP/1 WebSocket origin. Its heads have names in lower case.
std::string switched(const std::string& head) {
  constexpr std::string_view kName = "\r\nsec-websocket-key: ";
  const size_t at = head.find(kName);
  if (at == std::string::npos) return Origin::ok("a page");
  const size_t begin = at + kName.size();
  return fmt::format(
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n"
      "Sec-WebSocket-Protocol: chat\r\n\r\n",
      websocket_accept(head.substr(begin, head.find("\r\n", begin) - begin)));
}

bool echo_to_end(Wire& wire) {
  for (std::string got; !(got = wire.read_some()).empty();) wire.send(got);
  return wire.send(" bye") && false;
}

// The answer of an HTTP/2 origin to an extended CONNECT; a page for other requests.
Reply opened(const Request& request) {
  Reply reply;
  if (request.fields.count(":protocol") == 0) return says("a page");
  reply.fields.emplace_back("sec-websocket-protocol", "chat");
  reply.echo = true;
  reply.farewell = " bye";
  return reply;
}

class Http2Tunnel : public Http2Backend {
 protected:
  uint64_t opened_tunnels() const { return edge_.metric("tidegate_l7_tunnels_opened_total"); }
  bool all_closed() {
    return edge_.run_until([&] { return edge_.metric("tidegate_l7_tunnels_closed_total") == opened_tunnels(); });
  }
  std::string connect_status(const std::string& protocol = "websocket", const std::string& path = "/") {
    Http2Client client(edge_.endpoint());
    const int32_t id = client.submit_fed(connect_by(protocol, path));
    EXPECT_TRUE(client.run_until([&] { return client.result(id).answered; }));
    return client.result(id).fields[":status"];
  }
  // Sends each of `pieces` when the previous one has come back, and then a half-close. Returns all that came back.
  std::string by_http1(const std::string& path, const std::vector<std::string>& pieces) {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(upgrade(path));
    const Answer answer = read_answer(wire);
    EXPECT_EQ(answer.status, 101) << path;
    EXPECT_EQ(answer.field("upgrade"), "websocket");
    EXPECT_EQ(answer.field("connection"), "upgrade");
    EXPECT_NE(answer.spelt.find(fmt::format("Sec-WebSocket-Accept: {}\r\n", kAccept)), std::string::npos)
        << answer.spelt;
    EXPECT_EQ(answer.field("sec-websocket-protocol"), "chat");
    EXPECT_EQ(answer.field("content-length") + answer.field("transfer-encoding"), "");
    std::string back;
    for (const std::string& piece : pieces) {
      wire.send(piece);
      back += wire.read_exactly(piece.size());
    }
    wire.half_close();
    return back + wire.read_to_end();
  }
  std::string by_http2(const std::string& path, const std::vector<std::string>& pieces) {
    Http2Client client(edge_.endpoint());
    const int32_t id = client.submit_fed(connect_by("websocket", path));
    StreamResult& result = client.result(id);
    EXPECT_TRUE(client.run_until([&] { return result.head_ended; }));
    EXPECT_EQ(result.fields[":status"], "200") << path;
    EXPECT_EQ(result.fields["sec-websocket-protocol"], "chat");
    EXPECT_EQ(result.fields.count("sec-websocket-accept") + result.fields.count("upgrade"), 0u);
    size_t sent = 0;
    for (const std::string& piece : pieces) {
      client.feed(id, piece, false);
      sent += piece.size();
      EXPECT_TRUE(client.run_until([&] { return result.body.size() == sent; }));
    }
    client.feed(id, "", true);
    EXPECT_TRUE(client.finish(id));
    EXPECT_EQ(result.closed, uint32_t{NGHTTP2_NO_ERROR});
    return result.body;
  }
};

TEST_F(Http2Tunnel, CarriesTheSameBytesInAllFourPairings) {
  Origin http1([](const std::string& head, Wire& wire) { return wire.send(switched(head)) && echo_to_end(wire); });
  Http2Origin http2(opened, 1000, true);
  edge_.add_route("/http1", edge_.add_pool("http1", {http1.endpoint()}));
  start(http2.endpoint());
  std::mt19937 random(1);
  std::vector<std::string> pieces;
  std::string all;
  for (const size_t bytes : {1u, 20'000u, 70'000u, 2u, 150'000u}) {
    std::string& piece = pieces.emplace_back(bytes, '\0');
    for (char& c : piece) c = static_cast<char>(random());
    all += piece;
  }
  for (const char* path : {"/http1", "/http2"}) {
    EXPECT_TRUE(by_http1(path, pieces) == all + " bye") << path;
    EXPECT_TRUE(by_http2(path, pieces) == all + " bye") << path;
  }
  EXPECT_TRUE(all_closed());
  EXPECT_EQ(opened_tunnels(), 4u);
  EXPECT_EQ(http2.resets(), 0u) << "a tunnel that both sides have ended needs none";
  EXPECT_EQ(http2.connections(), 1u);
}

TEST_F(Http2Tunnel, AsksTheBackendByExtendedConnect) {
  std::mutex mutex;
  std::map<std::string, std::string> seen;
  Http2Origin origin(
      [&](const Request& request) {
        const std::lock_guard held(mutex);
        seen = request.fields;
        return opened(request);
      },
      1000, true);
  start(origin.endpoint(), [](Pool& pool) { pool.upgrades = {"echo/1"}; });
  by_http1("/chat?room=1", {});
  {
    const std::lock_guard held(mutex);
    EXPECT_EQ(seen[":method"], "CONNECT");
    EXPECT_EQ(seen[":protocol"], "websocket");
    EXPECT_EQ(seen[":scheme"], "http");
    EXPECT_EQ(seen[":path"], "/chat?room=1");
    EXPECT_EQ(seen[":authority"], "a.test");
    EXPECT_EQ(seen["sec-websocket-version"], "13");
    for (const char* name : {"sec-websocket-key", "upgrade", "connection", "content-length"}) {
      EXPECT_EQ(seen.count(name), 0u) << name;
    }
  }
  by_http2("/", {});
  EXPECT_EQ((std::lock_guard(mutex), seen.count("sec-websocket-key")), 0u);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(upgrade("/", "echo/1"));
  const Answer answer = read_answer(wire);
  EXPECT_EQ(answer.status, 101);
  EXPECT_EQ(answer.field("upgrade"), "echo/1");
  EXPECT_EQ(answer.field("sec-websocket-accept"), "");
  wire.send("ping");
  EXPECT_EQ(wire.read_exactly(4), "ping");
  EXPECT_EQ((std::lock_guard(mutex), seen[":protocol"]), "echo/1");
}

TEST_F(Http2Tunnel, IsRefusedWhereTheBackendDoesNotAllowIt) {
  Http2Origin origin([](const Request& request) { return says("page for " + request.fields.at(":method")); });
  start(origin.endpoint(), [](Pool& pool) { pool.upgrades = {"echo"}; });
  EXPECT_EQ(ask(edge_.endpoint(), upgrade("/")).status, 501);
  EXPECT_EQ(connect_status(), "501");
  EXPECT_EQ(connect_status("echo"), "501");
  EXPECT_EQ(failures(Failure::tunnels_unsupported), 3u);
  EXPECT_EQ(ask(edge_.endpoint(), upgrade("/", "echo")).body, "page for GET") << "RFC 9110 §7.8: it may be ignored";
  EXPECT_EQ(ask(edge_.endpoint(), upgrade("/", "other")).body, "page for GET");
  EXPECT_EQ(charged(), 0u);
  EXPECT_EQ(opened_tunnels(), 0u);
  EXPECT_EQ(origin.resets(), 0u);
}

TEST_F(Http2Tunnel, GoesToTheBackendOfThePoolThatAllowsIt) {
  Http2Origin without([](const Request&) { return says("a page"); }), with(opened, 1000, true);
  const uint32_t pool = edge_.add_pool("p", {without.endpoint(), with.endpoint()});
  edge_.model.pools[pool].protocol = BackendProtocol::h2;
  edge_.add_route("/*", pool);
  edge_.start();
  for (int i = 0; i < 6; ++i) EXPECT_EQ(by_http1("/", {"x"}), "x bye");
  EXPECT_EQ(without.requests(), 0u);
  EXPECT_GT(without.connections(), 0u) << "it was chosen at first";
}

TEST_F(Http2Tunnel, NeedsAKeyThatTheProxyCanAnswer) {
  Http2Origin origin(opened, 1000, true);
  Origin http1([](const std::string&, Wire& wire) { return wire.send(Origin::ok("judged by the backend")); });
  edge_.add_route("/http1", edge_.add_pool("http1", {http1.endpoint()}));
  start(origin.endpoint());
  const std::string two = fmt::format("{}\r\nSec-WebSocket-Key: {}", kKey, kKey);
  const std::array<std::string_view, 4> wrong = {"", "c2hvcnQ=", "not base64 of sixteen b.", two};
  for (const std::string_view key : wrong) {
    EXPECT_EQ(ask(edge_.endpoint(), upgrade("/", "websocket", key)).status, 400) << key;
    EXPECT_EQ(ask(edge_.endpoint(), upgrade("/http1", "websocket", key)).body, "judged by the backend");
  }
  EXPECT_EQ(failures(Failure::bad_request), wrong.size());
  EXPECT_EQ(origin.requests(), 0u);
}

// An extended CONNECT has neither a method nor content of the request itself (RFC 8441 §4).
TEST_F(Http2Tunnel, IsNotOpenedByARequestWithContent) {
  Http2Origin origin([](const Request& request) { return says(request.fields.at(":method") + request.body); }, 1000,
                     true);
  start(origin.endpoint());
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n");
  wire.send(fmt::format("Sec-WebSocket-Key: {}\r\n\r\nhi", kKey));
  EXPECT_EQ(read_answer(wire).body, "POSThi");
  EXPECT_EQ(opened_tunnels(), 0u);
}

TEST_F(Http2Tunnel, PassesARefusalOfTheBackendAsItIs) {
  Http2Origin origin(
      [](const Request&) {
        Reply reply = says("not for you");
        reply.fields = {{":status", "403"}};
        return reply;
      },
      1000, true);
  start(origin.endpoint());
  const Answer answer = ask(edge_.endpoint(), upgrade("/"));
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.body, "not for you");
  EXPECT_EQ(connect_status(), "403");
  EXPECT_EQ(opened_tunnels(), 0u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, 403);
  EXPECT_EQ(origin.resets(), 0u);
  EXPECT_EQ(origin.connections(), 1u);
}

TEST_F(Http2Tunnel, EndsForTheBackendWhenItsClientIsCutOff) {
  Http2Origin origin(opened, 1000, true);
  start(origin.endpoint());
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(upgrade("/"));
  EXPECT_EQ(read_answer(wire).status, 101);
  wire.reset();
  EXPECT_TRUE(edge_.run_until([&] { return origin.resets() == 1; }));
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit_fed(connect_by("websocket", "/"));
  ASSERT_TRUE(client.run_until([&] { return client.result(id).head_ended; }));
  nghttp2_submit_rst_stream(client.session(), NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
  client.send_all();
  EXPECT_TRUE(edge_.run_until([&] { return origin.resets() == 2; }));
  EXPECT_TRUE(all_closed());
  EXPECT_EQ(origin.connections(), 1u) << "the other streams' connection stays";
}

// NO_ERROR ends a tunnel in order, other codes break it off.
TEST_F(Http2Tunnel, EndsWhenTheBackendResetsIt) {
  Http2Origin origin(
      [](const Request& request) {
        Reply reply = says("last words");
        reply.reset = request.fields.at(":path") == "/end" ? NGHTTP2_NO_ERROR : NGHTTP2_CANCEL;
        return reply;
      },
      1000, true);
  start(origin.endpoint(), [](Pool& pool) { pool.eject_after = 0; });
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(upgrade("/cancel"));
  EXPECT_EQ(read_answer(wire).status, 101);
  EXPECT_EQ(wire.read_to_end(), "last words");
  EXPECT_TRUE(edge_.run_until([&] { return failures(Failure::backend_truncated) == 1; }));
  Wire other = Wire::connect(edge_.endpoint());
  other.send(upgrade("/end"));
  EXPECT_EQ(read_answer(other).status, 101);
  EXPECT_EQ(other.read_to_end(), "last words");
  EXPECT_TRUE(all_closed());
  EXPECT_EQ(failures(Failure::backend_truncated), 1u);
}

TEST_F(Http2Tunnel, LivesOnAfterAGoawayOfTheBackend) {
  Http2Origin origin(
      [](const Request& request) {
        Reply reply = opened(request);
        reply.goaway_at = request.connection == 1 ? request.stream : 0;
        return reply;
      },
      1000, true);
  start(origin.endpoint());
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(upgrade("/"));
  EXPECT_EQ(read_answer(wire).status, 101);
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_backend_goaways_total") == 1; }));
  EXPECT_EQ(by_http1("/", {"other"}), "other bye");
  wire.send("still here");
  EXPECT_EQ(wire.read_exactly(10), "still here");
  EXPECT_EQ(origin.connections(), 2u);
}

TEST_F(Http2Tunnel, WaitsForTheBackendsSettingsNoLongerThanForAConnection) {
  Origin silent([](const std::string&, Wire& wire) { return !wire.at_end(); });  // the preface reads like a head
  start(silent.endpoint(), [](Pool& pool) {
    pool.connect_timeout_ms = 50;
    pool.retry_attempts = 0;
  });
  EXPECT_EQ(ask(edge_.endpoint(), upgrade("/")).status, 504);
  EXPECT_EQ(failures(Failure::connect_timeout), 1u);
}

TEST_F(Http2Tunnel, OutlivesADrain) {
  Http2Origin origin(opened, 1000, true);
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit_fed(connect_by("websocket", "/"));
  StreamResult& result = client.result(id);
  ASSERT_TRUE(client.run_until([&] { return result.head_ended; }));
  bool drained = false;
  edge_.proxy().drain([&] { drained = true; });
  ASSERT_TRUE(client.run_until([&] { return client.last_ids().size() == 2; }));
  EXPECT_EQ(client.last_ids().back(), id);
  client.feed(id, "still here", false);
  ASSERT_TRUE(client.run_until([&] { return result.body == "still here"; }));
  EXPECT_FALSE(drained);
  client.feed(id, "", true);
  client.run_until([&] { return result.answered; });
  EXPECT_EQ(result.body, "still here bye");
  EXPECT_TRUE(edge_.run_until([&] { return drained; }));
}

TEST_F(Http2Tunnel, IsCutWhenTheTimeOfADrainIsOver) {
  Http2Origin origin(opened, 1000, true);
  edge_.model.nodes[0].l7.drain_timeout_ms = 50;
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit_fed(connect_by("websocket", "/"));
  ASSERT_TRUE(client.run_until([&] { return client.result(id).head_ended; }));
  EXPECT_TRUE(edge_.drain());
  EXPECT_FALSE(client.run_until([&] { return client.result(id).answered; })) << "END_STREAM would say that it is whole";
  EXPECT_TRUE(edge_.run_until([&] { return origin.resets() == 1; })) << "the backend is told";
}

// --- what TLS chooses

// A backend with both HTTP versions by ALPN. Its HTTP/2 allows no tunnels, and answers nothing.
class TwoVersions {
 public:
  TwoVersions() : listen_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const Certificate certificate = certificate_for("a.test");
    TlsServerOptions options;
    options.identities = {{*certificate.certificate.bytes, *certificate.key.bytes}};
    options.alpn = {"h2", "http/1.1"};
    context_ = *TlsContext::server(options);
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(listen_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(listen_.get(), 16), 0);
    ::getsockname(listen_.get(), reinterpret_cast<sockaddr*>(&address), &length);
    endpoint = Endpoint::from(address);
    acceptor_ = std::thread([this] { run(); });
  }
  ~TwoVersions() {
    ::shutdown(listen_.get(), SHUT_RDWR);
    acceptor_.join();
    for (const UniqueFd& fd : open_) ::shutdown(fd.get(), SHUT_RDWR);
    for (std::thread& thread : threads_) thread.join();
  }
  Endpoint endpoint;
  std::atomic<size_t> http1{0}, http2{0};  // connections

 private:
  void run() {
    for (;;) {
      UniqueFd fd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!fd) return;
      threads_.emplace_back([this, socket = fd.get()] { serve(socket); });
      open_.push_back(std::move(fd));
    }
  }
  void serve(int fd) {
    TlsStream tls(context_, fd, true);
    if (tls.handshake() != TlsStatus::ok) return;
    std::array<char, 4096> buffer;
    if (tls.alpn() == "h2") {
      ++http2;
      tls.write("\0\0\0\4\0\0\0\0\0", 9);  // SETTINGS without an entry
      while (tls.read(buffer.data(), buffer.size()).status == TlsStatus::ok) continue;
      return;
    }
    ++http1;
    std::string head;
    while (head.find("\r\n\r\n") == std::string::npos) {
      const TlsStream::Io got = tls.read(buffer.data(), buffer.size());
      if (got.status != TlsStatus::ok) return;
      head.append(buffer.data(), got.bytes);
    }
    for (size_t i = 0; i < head.size(); ++i) {
      if (head.compare(i, 17, "Sec-WebSocket-Key") == 0) head.replace(i, 17, "sec-websocket-key");
    }
    const std::string answer = switched(head);
    tls.write(answer.data(), answer.size());
    for (TlsStream::Io got; (got = tls.read(buffer.data(), buffer.size())).status == TlsStatus::ok;) {
      tls.write(buffer.data(), got.bytes);
    }
  }
  UniqueFd listen_;
  std::shared_ptr<TlsContext> context_;
  std::vector<UniqueFd> open_;
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

class Http2TunnelByTls : public Http2Tunnel {
 protected:
  void start_tls(
      const Endpoint& backend, const std::function<void(Pool&)>& set = [](Pool&) {}) {
    start(backend, [&](Pool& pool) {
      pool.tls = true;
      pool.tls_verify = false;
      pool.tls_server_name = "a.test";
      pool.protocol = BackendProtocol::automatic;
      set(pool);
    });
  }
  // A tunnel that is open.
  Wire open_tunnel() {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(upgrade("/"));
    EXPECT_EQ(read_answer(wire).status, 101);
    wire.send("ping");
    EXPECT_EQ(wire.read_exactly(4), "ping");
    return wire;
  }
};

TEST_F(Http2TunnelByTls, AutoOpensItOverHttp2WhereTheBackendAllowsIt) {
  Origin origin([](const std::string& head, Wire& wire) { return wire.send(switched(head)) && echo_to_end(wire); });
  Edge behind;  // it has HTTP/2 with extended CONNECT
  behind.model.certificates = {certificate_for("a.test")};
  behind.model.listeners[0].tls.enabled = true;
  behind.model.listeners[0].tls.certificates = {0};
  behind.add_route("/*", behind.add_pool("origin", {origin.endpoint()}));
  behind.start();
  start_tls(behind.endpoint());
  EXPECT_EQ(by_http1("/", {"one"}), "one bye");
  EXPECT_EQ(by_http2("/", {"two"}), "two bye");
  EXPECT_EQ(connections(), 1u);
  EXPECT_EQ(behind.metric("tidegate_l7_client_connections_total"), 1u);
}

TEST_F(Http2TunnelByTls, AutoOpensItOverHttp1WhereHttp2DoesNotAllowIt) {
  TwoVersions backend;
  start_tls(backend.endpoint);
  const Wire first = open_tunnel(), second = open_tunnel();
  EXPECT_EQ(backend.http1, 2u);
  EXPECT_EQ(backend.http2, 1u) << "the first tunnel learnt that from its SETTINGS";
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 0u);
  EXPECT_EQ(charged(), 0u);
  EXPECT_EQ(failures(Failure::tunnels_unsupported), 0u);
}

// A tunnel over HTTP/1 needs its own connection. If it waited for one in the queue, requests that can share the HTTP/2
// connection would wait behind it.
TEST_F(Http2TunnelByTls, ATunnelThatFindsNoConnectionHoldsNobodyUp) {
  TwoVersions backend;
  start_tls(backend.endpoint, [](Pool& pool) { pool.max_connections = 2; });
  const Wire tunnel = open_tunnel();  // in addition to the HTTP/2 connection that does not allow tunnels
  Wire waiting = Wire::connect(edge_.endpoint());
  waiting.send(get("/"));  // on that connection
  ASSERT_TRUE(
      edge_.run_until([&] { return edge_.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}") == 2; }));
  EXPECT_EQ(ask(edge_.endpoint(), upgrade("/")).status, 503);
  EXPECT_EQ(failures(Failure::pool_busy), 1u);
  EXPECT_EQ(backend.http1 + backend.http2, 2u);
}

}  // namespace tidegate::l7::test::http2_tunnel_test
