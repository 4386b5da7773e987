// SPDX-License-Identifier: Apache-2.0
// Bodies that wait in memory between a slow client and its backend: buffer_request and buffer_response.
#include <gtest/gtest.h>

#include <set>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "l7/exchange/failure.h"
#include "l7/limits.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::buffer_test {

constexpr uint64_t kMB = 1 << 20;

std::string field_of(const std::string& head, const std::string& lower_name) {
  const size_t at = head.find("\r\n" + lower_name + ": ");
  if (at == std::string::npos) return {};
  const size_t begin = at + lower_name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

std::string chunk(const std::string& data) {
  char size[20];
  std::snprintf(size, sizeof size, "%zx\r\n", data.size());
  return size + data + "\r\n";
}

// The body of a request in any framing; trailers are its last lines.
std::string body_of(const std::string& head, Wire& wire) {
  if (const std::string length = field_of(head, "content-length"); !length.empty()) {
    return wire.read_exactly(std::stoul(length));
  }
  std::string body;
  while (const size_t bytes = std::stoul(wire.read_until("\r\n"), nullptr, 16)) {
    body += wire.read_exactly(bytes);
    wire.read_exactly(2);
  }
  return body + wire.read_until("\r\n");
}

// Reports how the request was framed, and its body.
bool tell(const std::string& head, Wire& wire) {
  if (head.starts_with("GET")) return wire.send(Origin::ok("got"));
  const std::string length = field_of(head, "content-length");
  const std::string body = body_of(head, wire);
  return wire.send(Origin::ok(body, "X-Framed: " + (length.empty() ? "chunked" : length) + "\r\n"));
}

const std::string kChunkedPost = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n";

class Buffer : public ::testing::Test {
 protected:
  Pool& add(const std::vector<Endpoint>& origins, uint64_t request_bytes, uint64_t response_bytes = 0) {
    const uint32_t index = edge_.add_pool("p", origins);
    edge_.add_route("/*", index);
    Pool& pool = edge_.model.pools[index];
    pool.buffer_request_bytes = request_bytes;
    pool.buffer_response_bytes = response_bytes;
    return pool;
  }
  uint64_t failures(Failure failure) const {
    return edge_.metric(std::string("tidegate_l7_failures_total{reason=\"") + info(failure).name + "\"}");
  }
  uint64_t buffered() const { return edge_.metric("tidegate_l7_requests_buffered_total"); }
  uint64_t unbuffered() const { return edge_.metric("tidegate_l7_requests_unbuffered_total"); }
  // After this request was answered, the worker has seen everything that was sent before.
  void ask_meanwhile(const Origin& origin) {
    EXPECT_EQ(ask(edge_.endpoint(), get("/meanwhile")).body, "got");
    EXPECT_EQ(origin.requests(), ++meanwhile_);
  }
  Edge edge_;
  size_t meanwhile_ = 0;
};

TEST_F(Buffer, ABackendIsAskedWhenTheBodyIsWholeAndGetsItsLength) {
  Origin origin(tell);
  add({origin.endpoint()}, kMB);
  edge_.start();
  const std::string half(100'000, 'h');
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(kChunkedPost + "\r\n" + chunk(half));
  ask_meanwhile(origin);
  wire.send(chunk(half) + "0\r\n\r\n");
  const Answer answer = read_answer(wire);
  EXPECT_EQ(answer.field("x-framed"), "200000");
  EXPECT_TRUE(answer.body == half + half);
  // Next on the same connection: a request with a known length, then one without a body.
  wire.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n12345");
  meanwhile_ = 2;
  ask_meanwhile(origin);
  wire.send("67890");
  EXPECT_EQ(read_answer(wire).body, "1234567890");
  wire.send(kChunkedPost + "\r\n0\r\n\r\n");
  EXPECT_EQ(read_answer(wire).field("x-framed"), "0");
  EXPECT_EQ(buffered(), 3u);
  EXPECT_EQ(unbuffered(), 0u);
}

TEST_F(Buffer, ABodyOfAnHttp2ClientGetsALengthToo) {
  Origin origin(tell);
  add({origin.endpoint()}, kMB);
  edge_.start();
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(Http2Client::request("/x", "POST"), std::string(300'000, 'b'));
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).fields["x-framed"], "300000");
  EXPECT_EQ(client.result(id).body.size(), 300'000u);
}

// A buffer begins with a small block, and its other blocks are large.
TEST_F(Buffer, ABodyThatBeginsWithAShortPieceIsWhole) {
  Origin origin(tell);
  add({origin.endpoint()}, kMB, kMB);
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(kChunkedPost + "\r\n" + chunk("short"));
  ask_meanwhile(origin);
  std::string body = "short";
  for (const size_t bytes : {4'000u, 100u, 70'000u, 3u, 130'000u}) {
    const std::string piece(bytes, static_cast<char>('a' + bytes % 26));
    body += piece;
    wire.send(chunk(piece));
  }
  wire.send("0\r\n\r\n");
  const Answer answer = read_answer(wire);
  EXPECT_EQ(answer.field("x-framed"), std::to_string(body.size()));
  EXPECT_TRUE(answer.body == body) << answer.body.size();
}

TEST_F(Buffer, ALargerBodyPassesAsItComes) {
  Origin origin(tell);
  add({origin.endpoint()}, 100'000);
  edge_.start();
  const std::string body(900'000, 'b');
  const Answer unknown = ask(edge_.endpoint(), kChunkedPost + "\r\n" + chunk(body) + "0\r\n\r\n");
  EXPECT_EQ(unknown.field("x-framed"), "chunked");
  EXPECT_TRUE(unknown.body == body + "\r\n") << unknown.body.size();
  EXPECT_EQ(unbuffered(), 1u);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 900000\r\n\r\n");
  EXPECT_TRUE(edge_.run_until([&] { return origin.requests() == 2; })) << "nobody waits for what will not fit";
  wire.send(body);
  EXPECT_TRUE(read_answer(wire).body == body);
  EXPECT_EQ(unbuffered(), 2u);
  EXPECT_EQ(buffered(), 0u);
}

TEST_F(Buffer, AClientThatWaitsFor100IsToldToGoOnBeforeABackendIsAsked) {
  Origin origin(tell);
  add({origin.endpoint()}, kMB);
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
  EXPECT_EQ(wire.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  EXPECT_EQ(origin.requests(), 0u);
  wire.send("body");
  EXPECT_EQ(read_answer(wire).body, "body");
  EXPECT_EQ(origin.last_head().find("xpect"), std::string::npos);
}

TEST_F(Buffer, TrailersKeepTheBodyChunked) {
  Origin origin(tell);
  add({origin.endpoint()}, kMB);
  edge_.start();
  const Answer answer = ask(edge_.endpoint(), kChunkedPost + "\r\n" + chunk("body") + "0\r\nX-Sum: 1\r\n\r\n");
  EXPECT_EQ(answer.field("x-framed"), "chunked");
  EXPECT_EQ(answer.body, "bodyX-Sum: 1\r\n");
}

TEST_F(Buffer, AnIdempotentRequestGoesToAnotherBackendWithItsBody) {
  Origin broken([](const std::string&head, Wire&wire) { return body_of(head, wire).empty(); }), works(tell);
  add({broken.endpoint(), works.endpoint()}, kMB).eject_after = 0;
  edge_.start();
  const std::string body(300'000, 'b');
  const auto ask_twice = [&](const std::string& method) {
    std::multiset<int> statuses;
    for (int i = 0; i < 2; ++i) {
      const Answer answer =
          ask(edge_.endpoint(), method + " /x HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + body);
      statuses.insert(answer.status);
      if (answer.status == 200) EXPECT_TRUE(answer.body == body);
    }
    return statuses;
  };
  EXPECT_EQ(ask_twice("PUT"), (std::multiset<int>{200, 200}));
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 1u);
  EXPECT_EQ(ask_twice("POST"), (std::multiset<int>{200, 502})) << "the backend may have begun to act on it";
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 1u);
}

TEST_F(Buffer, ABodyThatDoesNotArriveAsksNoBackend) {
  Origin origin(tell);
  add({origin.endpoint()}, kMB);
  edge_.model.listeners[0].idle_timeout_ms = 100;
  edge_.model.listeners[0].max_body_bytes = 50'000;
  edge_.start();
  EXPECT_EQ(ask(edge_.endpoint(), "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf").status, 408);
  EXPECT_EQ(ask(edge_.endpoint(), kChunkedPost + "\r\nzz\r\n").status, 400);
  EXPECT_EQ(ask(edge_.endpoint(), kChunkedPost + "\r\n" + chunk(std::string(60'000, 'b'))).status, 413);
  {
    Wire leaves = Wire::connect(edge_.endpoint());
    leaves.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf");
  }
  EXPECT_TRUE(edge_.run_until([&] { return failures(Failure::client_gone) == 1; }));
  EXPECT_EQ(failures(Failure::request_timeout) + failures(Failure::client_too_slow), 1u);
  EXPECT_EQ(failures(Failure::bad_request), 1u);
  EXPECT_EQ(failures(Failure::body_too_large), 1u);
  EXPECT_EQ(origin.requests(), 0u);
}

TEST_F(Buffer, ABackendIsFreeBeforeItsClientHasReadTheAnswer) {
  std::string body;
  for (size_t i = 0; body.size() < 6 * kMB; ++i) body += std::to_string(i) + "\n";
  Origin origin([&](const std::string& head, Wire& wire) {
    if (head.starts_with("GET /meanwhile")) return wire.send(Origin::ok("got"));
    wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(body));
    return wire.send("0\r\nX-Sum: 1\r\n\r\n");
  });
  add({origin.endpoint()}, 0, 8 * kMB).max_connections = 1;
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint(), 4096);
  wire.send(get("/x", "a.test", "Connection: TE\r\nTE: trailers\r\n"));
  ASSERT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_responses_buffered_total") == 1; }));
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}"), 0u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/meanwhile")).body, "got") << "on the only connection that the backend allows";
  EXPECT_EQ(origin.connections(), 1u);
  wire.read_until("\r\n\r\n");
  std::string read;
  while (const size_t bytes = std::stoul(wire.read_until("\r\n"), nullptr, 16)) {
    read += wire.read_exactly(bytes);
    wire.read_exactly(2);
  }
  EXPECT_TRUE(read == body) << read.size();
  EXPECT_EQ(wire.read_until("\r\n\r\n"), "X-Sum: 1\r\n\r\n");
}

TEST_F(Buffer, AnAnswerThatIsLargerThanTheBoundIsWholeToo) {
  const std::string body(20 * kMB, 'b');
  Origin origin([&](const std::string&, Wire& wire) { return wire.send(Origin::ok(body)); });
  add({origin.endpoint()}, 0, 100'000);
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint(), 4096);
  wire.send(get("/x"));
  const std::string head = wire.read_until("\r\n\r\n");
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}"), 1u) << "the backend waits";
  EXPECT_TRUE(wire.read_exactly(body.size()) == body);
}

TEST_F(Buffer, AClientThatLeavesAmidABufferedAnswerFreesIt) {
  const std::string body(6 * kMB, 'b');
  Origin origin([&](const std::string&, Wire& wire) { return wire.send(Origin::ok(body)); });
  add({origin.endpoint()}, 0, 8 * kMB);
  edge_.start();
  {
    Wire wire = Wire::connect(edge_.endpoint(), 4096);
    wire.send(get("/x"));
    ASSERT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_responses_buffered_total") == 1; }));
    wire.reset();
  }
  EXPECT_TRUE(edge_.run_until([&] { return failures(Failure::client_gone) == 1; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/x")).body.size(), body.size());
}

// All buffers of a worker have one budget. Requests that come when it is used up are served as without a buffer.
TEST(LongBuffer, PassesBodiesAsTheyComeWhenTheMemoryIsSpent) {
  Origin origin(tell);
  Edge edge;
  edge.model.nodes[0].l7.workers = 1;
  const uint32_t pool = edge.add_pool("p", {origin.endpoint()});
  edge.add_route("/*", pool);
  edge.model.pools[pool].buffer_request_bytes = 64 * kMB;
  edge.start();
  const std::string part(60 * kMB, 'b');
  const std::string head =
      "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(part.size() + 1) + "\r\n\r\n";
  std::vector<Wire> clients;
  for (size_t i = 0; i < kHttp2GrownWindowBytes / part.size() + 1; ++i) {
    EXPECT_EQ(edge.metric("tidegate_l7_requests_unbuffered_total"), 0u);
    clients.push_back(Wire::connect(edge.endpoint()));
    clients.back().send(head + part);
  }
  EXPECT_TRUE(edge.run_until([&] { return edge.metric("tidegate_l7_requests_unbuffered_total") == 1; }));
  EXPECT_TRUE(edge.run_until([&] { return origin.requests() == 1; }));
  for (Wire& client : clients) {
    client.send("b");
    EXPECT_EQ(read_answer(client).body.size(), part.size() + 1);
  }
}

}  // namespace tidegate::l7::test::buffer_test
