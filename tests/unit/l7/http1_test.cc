// SPDX-License-Identifier: Apache-2.0
// HTTP/1 on the client's side: connections, bodies in both directions, what is sent and what is kept.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "core/clock.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::http1_test {

std::string pattern(size_t bytes) {
  std::string out(bytes, '\0');
  for (size_t i = 0; i < bytes; ++i) out[i] = static_cast<char>(i * 31 + i / 251);
  return out;
}

// Answers with the body that it received.
bool echo(const std::string& head, Wire& wire) {
  std::string body;
  if (const size_t at = head.find("content-length: "); at != std::string::npos) {
    body = wire.read_exactly(std::stoul(head.substr(at + 16)));
  } else if (head.find("transfer-encoding: chunked") != std::string::npos) {
    for (;;) {
      const std::string line = wire.read_until("\r\n");
      if (line.empty()) return false;
      const size_t bytes = std::stoul(line, nullptr, 16);
      const std::string chunk = wire.read_exactly(bytes + 2);
      if (bytes == 0) break;
      body += chunk.substr(0, bytes);
    }
  }
  return wire.send(Origin::ok(body));
}

class Http1 : public ::testing::Test {
 protected:
  void start(Origin& origin) {
    edge_.add_route("/*", edge_.add_pool("p", {origin.endpoint()}));
    edge_.start();
  }
  Edge edge_;
};

TEST_F(Http1, CarriesARequestAndItsAnswer) {
  std::string seen;
  Origin origin([&](const std::string& head, Wire& wire) {
    seen = head;
    return wire.send(Origin::ok("hello", "X-Mine: 1\r\nConnection: X-Gone\r\nX-Gone: 2\r\n"));
  });
  start(origin);
  const Answer answer = ask(edge_.endpoint(), get("/a/b?c=d", "www.a.test", "Accept: x\r\n"));
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body, "hello");
  EXPECT_EQ(answer.field("x-mine"), "1");
  EXPECT_EQ(answer.field("x-gone"), "");
  EXPECT_EQ(answer.field("via"), "1.1 n1");
  EXPECT_EQ(answer.field("x-request-id").size(), 32u);
  EXPECT_NE(answer.field("date"), "");
  EXPECT_EQ(seen.rfind("GET /a/b?c=d HTTP/1.1\r\nhost: www.a.test\r\naccept: x\r\n", 0), 0u) << seen;
  EXPECT_NE(seen.find("\r\nx-forwarded-for: 127.0.0.1\r\n"), std::string::npos);
  EXPECT_NE(seen.find("\r\nx-request-id: " + answer.field("x-request-id") + "\r\n"), std::string::npos);
}

TEST_F(Http1, KeepsConnectionsOnBothSides) {
  Origin origin(Origin::says("x"));
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  for (int i = 0; i < 20; ++i) {
    wire.send(get("/"));
    EXPECT_EQ(read_answer(wire).body, "x");
  }
  EXPECT_EQ(origin.requests(), 20u);
  EXPECT_EQ(origin.connections(), 1u);
}

TEST_F(Http1, AnswersPipelinedRequestsInOrder) {
  Origin origin([](const std::string& head, Wire& wire) { return wire.send(Origin::ok(head.substr(4, 3))); });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  std::string burst;
  for (int i = 100; i < 200; ++i) burst += get(std::to_string(i).insert(0, "/").substr(0, 4));
  wire.send(burst);
  for (int i = 100; i < 200; ++i) EXPECT_EQ(read_answer(wire).body, "/" + std::to_string(i).substr(0, 2)) << i;
}

TEST_F(Http1, CarriesLargeBodiesBothWaysWhateverTheirFraming) {
  Origin origin(&echo);
  start(origin);
  const std::string body = pattern(3'000'000);
  Wire wire = Wire::connect(edge_.endpoint());
  for (const bool chunked : {false, true}) {
    std::string request = "POST / HTTP/1.1\r\nHost: a\r\n";
    if (chunked) {
      request += "Transfer-Encoding: chunked\r\n\r\n";
      for (size_t at = 0; at < body.size(); at += 70'000) {
        const std::string chunk = body.substr(at, 70'000);
        char size[20];
        request += std::string(size, http1::encode_chunk_header(chunk.size(), size)) + chunk + "\r\n";
      }
      request += "0\r\n\r\n";
    } else {
      request += "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
    }
    ASSERT_TRUE(wire.send(request));
    const Answer answer = read_answer(wire);
    EXPECT_TRUE(answer.complete);
    EXPECT_TRUE(answer.body == body) << "chunked: " << chunked << ", got " << answer.body.size();
  }
}

TEST_F(Http1, PassesBodiesOfUnknownLengthOnInChunksOrToAnOldClientUntilTheClose) {
  Origin origin([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\n\r\nuntil ");
    wire.send("the end");
    return false;
  });
  start(origin);
  const Answer chunked = ask(edge_.endpoint(), get("/"));
  EXPECT_EQ(chunked.field("transfer-encoding"), "chunked");
  EXPECT_EQ(chunked.body, "until the end");
  const Answer old = ask(edge_.endpoint(), "GET / HTTP/1.0\r\nHost: a\r\n\r\n");
  EXPECT_EQ(old.field("transfer-encoding"), "");
  EXPECT_EQ(old.field("connection"), "close");
  EXPECT_EQ(old.body, "until the end");
}

TEST_F(Http1, AHeadRequestGetsTheLengthAndNoBody) {
  Origin origin(
      [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"); });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  for (int i = 0; i < 2; ++i) {
    wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    const Answer answer = read_answer(wire, true);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(answer.field("content-length"), "1000");
  }
  EXPECT_EQ(origin.connections(), 1u);
}

TEST_F(Http1, ASlowReaderHoldsTheBackendBackInBoundedMemory) {
  std::atomic<size_t> sent{0};
  const std::string block = pattern(1 << 20);
  constexpr size_t kBlocks = 64;
  Origin origin([&](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(kBlocks * block.size()) + "\r\n\r\n");
    for (size_t i = 0; i < kBlocks && wire.send(block); ++i) sent += block.size();
    return true;
  });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/"));
  wire.read_until("\r\n\r\n");
  // Full socket buffers and one block in the proxy stop the origin. Wait until it has stood still for a while.
  size_t before = 1;
  while (before != sent) {
    before = sent;
    edge_.run_until([t = std::chrono::steady_clock::now()] {
      return std::chrono::steady_clock::now() - t > std::chrono::milliseconds(300);
    });
  }
  EXPECT_LT(sent, 24u << 20) << "the kernel's buffers and ours, not the whole";
  size_t got = 0;
  for (size_t i = 0; i < kBlocks; ++i) got += wire.read_exactly(block.size()) == block ? 1 : 0;
  EXPECT_EQ(got, kBlocks);
}

TEST_F(Http1, AsksForABodyThatWaitsForContinue) {
  Origin origin(&echo);
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(wire.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  wire.send("hello");
  EXPECT_EQ(read_answer(wire).body, "hello");
}

TEST_F(Http1, RefusesABodyThatIsTooLargeBeforeItIsSent) {
  Origin origin(&echo);
  edge_.model.listeners[0].max_body_bytes = 1000;
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(read_answer(wire).status, 413);
  EXPECT_EQ(origin.requests(), 0u);
  // A body without a declared size is cut off when it reaches the limit.
  Wire chunked = Wire::connect(edge_.endpoint());
  chunked.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5dc\r\n" + std::string(1500, 'x') +
               "\r\n0\r\n\r\n");
  EXPECT_EQ(read_answer(chunked).status, 413);
}

TEST_F(Http1, PassesAnEarlyAnswerOnAndClosesWhatIsLeftOfTheRequest) {
  Origin origin(
      [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"); });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + std::string(10'000, 'x'));
  const Answer answer = read_answer(wire);
  EXPECT_EQ(answer.status, 403);
  EXPECT_EQ(answer.body, "no");
  EXPECT_TRUE(wire.at_end());
}

TEST_F(Http1, AnEarlyAnswerKeepsTheConnectionWhenLittleIsLeftOfTheRequest) {
  Origin origin(
      [](const std::string&, Wire& wire) { return wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
  EXPECT_EQ(read_answer(wire).body, "ok");
  wire.send("0123456789" + get("/"));
  EXPECT_EQ(read_answer(wire).body, "ok");
}

TEST_F(Http1, AClientThatLeavesTakesItsBackendRequestWithIt) {
  std::atomic<bool> cut{false};
  Origin origin([&](const std::string&, Wire& wire) {
    cut = wire.at_end();
    return false;
  });
  start(origin);
  {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get("/"));
    ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  }
  EXPECT_TRUE(edge_.run_until([&] { return cut.load(); }));
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}") == 1; }));
}

TEST_F(Http1, ABackendThatDiesMidBodyIsNotPassedOffAsComplete) {
  Origin origin([](const std::string& head, Wire& wire) {
    wire.send(head.find("/chunked") == std::string::npos
                  ? "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart"
                  : "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
    return false;
  });
  start(origin);
  EXPECT_FALSE(ask(edge_.endpoint(), get("/")).complete);
  EXPECT_FALSE(ask(edge_.endpoint(), get("/chunked")).complete);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"backend_truncated\"}"), 2u);
}

TEST_F(Http1, TunnelsAfterAnUpgrade) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.find("\r\nupgrade: websocket\r\n") == std::string::npos) return false;
    wire.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nwelcome ");
    return wire.send("back " + wire.read_exactly(4)) && false;
  });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\r\n");
  const Answer answer = read_answer(wire);
  EXPECT_EQ(answer.status, 101);
  EXPECT_EQ(answer.field("upgrade"), "websocket");
  EXPECT_EQ(wire.read_exactly(8), "welcome ");
  wire.send("ping");
  EXPECT_EQ(wire.read_to_end(), "back ping");
}

TEST_F(Http1, AClientThatClosesItsSendingSideHasLeft) {
  std::atomic<bool> asked{false}, left{false};
  Origin origin([&](const std::string&, Wire& wire) {
    asked = true;
    left = wire.at_end();
    return false;
  });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/"));
  ASSERT_TRUE(edge_.run_until([&] { return asked.load(); }));
  wire.half_close();
  EXPECT_EQ(wire.read_to_end(), "");
  EXPECT_TRUE(edge_.run_until([&] { return left.load(); })) << "its backend need not go on";
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}"), 1u);
}

TEST_F(Http1, AClientThatClosesItsSendingSideIsAnsweredWhereTheListenerSaysSo) {
  std::atomic<int> asked{0};
  Origin origin([&](const std::string& head, Wire& wire) {
    ++asked;
    if (head.find("/slow") != std::string::npos) return wire.at_end() && false;
    if (head.find("/2") != std::string::npos) wire.read_exactly(3);
    return wire.send(Origin::ok("late"));
  });
  edge_.model.listeners[0].answer_half_closed = true;
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/1") + "POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
  wire.half_close();
  EXPECT_EQ(read_answer(wire).body, "late");
  EXPECT_EQ(read_answer(wire).body, "late") << "also of the request behind it";
  EXPECT_TRUE(wire.at_end());
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}"), 0u);

  Wire leaves = Wire::connect(edge_.endpoint());
  leaves.send(get("/slow"));
  ASSERT_TRUE(edge_.run_until([&] { return asked == 3; }));
  leaves.reset();
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}") == 1; }))
      << "a reset still says that it has left";
}

// Some answers wait in the proxy when it does, because the client has not read and the sockets hold no more.
TEST_F(Http1, AClientThatClosesItsSendingSideGetsTheRestOfItsAnswers) {
  constexpr size_t kBodyBytes = 16'384;  // a quarter of what may wait
  edge_.add_fixed("/*", 200, std::string(kBodyBytes, 'x'));
  edge_.start();
  const std::string answered = "tidegate_l7_requests_total{protocol=\"http/1.1\",status=\"2xx\"}";
  // Sends requests one by one while they are answered. Returns the number of answers.
  const auto ask_many = [&](Wire& wire, size_t most) {
    for (size_t count = 0; count < most; ++count) {
      const uint64_t before = edge_.metric(answered), until_ns = monotonic_ns() + 100 * kNsPerMs;
      wire.send(get("/"));
      edge_.run_until([&] { return edge_.metric(answered) > before || monotonic_ns() > until_ns; });
      if (edge_.metric(answered) == before) return count;
    }
    return most;
  };
  size_t most = 0;
  {
    Wire full = Wire::connect(edge_.endpoint());
    most = ask_many(full, 5'000);
  }
  Wire wire = Wire::connect(edge_.endpoint());
  const size_t count = ask_many(wire, most - 2);
  wire.half_close();
  const uint64_t seen_ns = monotonic_ns() + 20 * kNsPerMs;  // it sees the end meanwhile
  edge_.run_until([&] { return monotonic_ns() > seen_ns; });
  const std::string answers = wire.read_to_end();
  size_t whole = 0;
  for (size_t at = 0; (at = answers.find("HTTP/1.1 200 ", at)) != std::string::npos; ++at) ++whole;
  EXPECT_GE(whole, count);
  EXPECT_TRUE(answers.ends_with(std::string(kBodyBytes, 'x'))) << "the last one is not cut";
}

constexpr std::string_view kUpgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
constexpr std::string_view kUpgraded =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

TEST_F(Http1, TheEndOfEitherSideOfATunnelReachesTheOther) {
  const std::string much(3'000'000, 'x');  // more than the sockets hold, so it is still being sent when the client ends
  Origin origin([&](const std::string&, Wire& wire) {
    wire.send(kUpgraded);
    const std::string got = wire.read_to_end();
    return wire.send(got == much ? "all" : "cut off") && false;
  });
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(kUpgrade);
  EXPECT_EQ(read_answer(wire).status, 101);
  wire.send(much);
  wire.half_close();
  EXPECT_EQ(wire.read_to_end(), "all");
  EXPECT_TRUE(
      edge_.run_until([&] { return edge_.metric("tidegate_l7_backend_in_flight{pool=\"p\",backend=\"b1\"}") == 0; }));
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"client_gone\"}"), 0u);
}

TEST_F(Http1, ARequestAfterATunnelIsNoTunnel) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.starts_with("GET")) return wire.send(kUpgraded) && false;
    return wire.send(Origin::ok(wire.read_until("0\r\n\r\n")));
  });
  edge_.model.listeners[0].max_body_bytes = 100;
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(kUpgrade);
  EXPECT_EQ(read_answer(wire).status, 101);
  EXPECT_TRUE(wire.at_end());
  const std::string post = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
  EXPECT_EQ(ask(edge_.endpoint(), post + "2\r\nhi\r\n0\r\n\r\n").body, "2\r\nhi\r\n0\r\n\r\n");
  EXPECT_EQ(ask(edge_.endpoint(), post + "c8\r\n" + std::string(200, 'x') + "\r\n0\r\n\r\n").status, 413);
}

TEST_F(Http1, ATunnelOutlivesTheSilenceThatABodyMayHave) {
  Origin origin([](const std::string&, Wire& wire) {
    wire.send(kUpgraded);
    return wire.send(wire.read_exactly(4)) && false;
  });
  const uint32_t pool = edge_.add_pool("p", {origin.endpoint()});
  edge_.model.pools[pool].idle_timeout_ms = 1;
  edge_.add_route("/tunnel", pool);
  Origin stuck([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    return !wire.at_end();
  });
  const uint32_t stuck_pool = edge_.add_pool("stuck", {stuck.endpoint()});
  edge_.model.pools[stuck_pool].idle_timeout_ms = 50;
  edge_.add_route("/stuck", stuck_pool);
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  EXPECT_EQ(read_answer(wire).status, 101);
  EXPECT_FALSE(ask(edge_.endpoint(), get("/stuck")).complete);  // more than the silence limit has passed by now
  wire.send("ping");
  EXPECT_EQ(wire.read_to_end(), "ping");
}

TEST_F(Http1, OnlyWebSocketBecomesATunnel) {
  Origin origin([](const std::string& head, Wire& wire) {
    const bool asked = head.find("upgrade") != std::string::npos || head.find("http2-settings") != std::string::npos;
    return wire.send(Origin::ok(asked ? "upgrade" : "plain"));
  });
  start(origin);
  for (const char* upgrade : {"h2c", "echo", "TLS/1.0", "h2c, websocket"}) {
    const Answer answer =
        ask(edge_.endpoint(), std::string("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
                                          "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\nUpgrade: ") +
                                  upgrade + "\r\n\r\n");
    EXPECT_EQ(answer.body, "plain") << upgrade;
  }
  const Answer old =
      ask(edge_.endpoint(), "GET / HTTP/1.0\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  EXPECT_EQ(old.body, "plain");
}

TEST_F(Http1, AHeadThatDoesNotArriveIsAnsweredAndCutOff) {
  Origin origin(Origin::says("x"));
  edge_.model.listeners[0].header_timeout_ms = 100;
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send("GET / HTTP/1.1\r\nHos");
  EXPECT_EQ(read_answer(wire).status, 408);
  EXPECT_TRUE(wire.at_end());
  Wire silent = Wire::connect(edge_.endpoint());
  EXPECT_TRUE(silent.at_end());
}

TEST_F(Http1, ATunnelEndsAfterASilenceOfItsOwn) {
  Origin origin([](const std::string&, Wire& wire) { return wire.send(kUpgraded) && !wire.at_end(); });
  const uint32_t pool = edge_.add_pool("p", {origin.endpoint()});
  edge_.model.pools[pool].tunnel_timeout_ms = 50;
  edge_.add_route("/*", pool);
  edge_.start();
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(kUpgrade);
  EXPECT_EQ(read_answer(wire).status, 101);
  EXPECT_TRUE(wire.at_end());
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"tunnel_timeout\"}"), 1u);
}

// A byte now and then is slower than any real client. Without this limit it would hold a connection for ever.
TEST_F(Http1, ABodyThatTricklesInIsRefusedButNotWhereAnyByteWillDo) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.starts_with("GET")) return wire.send(Origin::ok("x"));
    wire.read_until("!");
    return wire.send(Origin::ok("whole"));
  });
  edge_.model.listeners[0].idle_timeout_ms = 200;
  edge_.model.listeners[0].minimum_rate_bytes = 1 << 20;
  edge_.model.listeners.push_back(edge_.model.listeners[0]);
  Listener& lenient = edge_.model.listeners.back();
  lenient.name = "lenient";
  lenient.bind = {*Endpoint::parse("127.0.0.2:0")};
  lenient.minimum_rate_bytes = 0;
  start(origin);
  const std::string post = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
  Wire slow = Wire::connect(edge_.endpoint());
  Wire allowed = Wire::connect(edge_.endpoint(1));
  slow.send(post);
  allowed.send(post);
  EXPECT_TRUE(edge_.run_until([&] {
    slow.send("x");
    allowed.send("x");
    return edge_.metric("tidegate_l7_failures_total{reason=\"client_too_slow\"}") == 1;
  }));
  EXPECT_EQ(read_answer(slow).status, 408);
  allowed.send("!");
  EXPECT_EQ(read_answer(allowed).body, "whole");
}

TEST_F(Http1, AClientThatTakesNothingIsCutOffWhateverItSends) {
  Origin origin(Origin::says(std::string(50'000'000, 'x')));
  edge_.model.listeners[0].idle_timeout_ms = 100;
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/"));
  EXPECT_TRUE(edge_.run_until([&] {
    wire.send("G");  // of a pipelined request
    return edge_.metric("tidegate_l7_failures_total{reason=\"client_too_slow\"}") == 1;
  }));
}

// A client that counts for how long it took nothing. On a busy machine that can be longer than it wants.
class HonestReader {
 public:
  explicit HonestReader(Wire& wire) : wire_(wire), read_ns_(monotonic_ns()) {}
  void take(size_t bytes) {
    const size_t got = wire_.read_exactly(bytes).size();
    whole_ = got == bytes;
    bytes_ += got;
    const uint64_t now_ns = monotonic_ns();
    longest_pause_ns_ = std::max(longest_pause_ns_, now_ns - std::exchange(read_ns_, now_ns));
  }
  size_t bytes() const { return bytes_; }
  bool whole() const { return whole_; }  // the last take() got all that it asked for
  uint64_t longest_pause_ns() const { return longest_pause_ns_; }

 private:
  Wire& wire_;
  size_t bytes_ = 0;
  bool whole_ = true;
  uint64_t read_ns_, longest_pause_ns_ = 0;
};

// Both clients read their downloads at the same pace. Only one of the listeners considers it too slow.
TEST_F(Http1, ADownloadBelowTheRateIsCutAndAnHonestSlowOneIsNot) {
  constexpr size_t kTakenAtOnce = 64 * 1024;
  constexpr size_t kBodyBytes = 915 * kTakenAtOnce;  // more than the sockets hold plus what is read meanwhile
  constexpr int kAttempts = 10;
  Origin origin(Origin::says(std::string(kBodyBytes, 'x')));
  Listener& demanding = edge_.model.listeners[0];
  demanding.idle_timeout_ms = 500;
  demanding.minimum_rate_bytes = 1 << 30;
  edge_.model.listeners.push_back(edge_.model.listeners[0]);
  Listener& lenient = edge_.model.listeners.back();
  lenient.name = "lenient";
  lenient.bind = {*Endpoint::parse("127.0.0.2:0")};
  lenient.minimum_rate_bytes = 4096;
  start(origin);
  const uint64_t patience_ns = edge_.model.listeners[0].idle_timeout_ms * kNsPerMs;
  const auto cut = [&] { return edge_.metric("tidegate_l7_failures_total{reason=\"client_too_slow\"}"); };
  // An attempt whose honest client did not run for half of its time shows nothing: that client was not honest.
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const uint64_t cut_before = cut();
    Wire slow = Wire::connect(edge_.endpoint());
    Wire honest = Wire::connect(edge_.endpoint(1));
    slow.send(get("/"));
    honest.send(get("/"));
    honest.read_until("\r\n\r\n");
    HonestReader reader(honest);
    const uint64_t long_enough_ns = monotonic_ns() + 3 * patience_ns;
    EXPECT_TRUE(edge_.run_until([&] {
      if (cut() == cut_before) slow.read_exactly(kTakenAtOnce);
      reader.take(kTakenAtOnce);
      return cut() > cut_before && monotonic_ns() > long_enough_ns;
    }));
    const size_t taken_slowly = reader.bytes();
    // First, because a client that does not read for idle_timeout is not honest.
    while (reader.whole() && reader.bytes() < kBodyBytes) reader.take(kTakenAtOnce);
    const size_t slow_bytes = slow.read_to_end().size();
    if (reader.longest_pause_ns() > patience_ns / 2) continue;
    EXPECT_LT(taken_slowly, kBodyBytes) << "it has had to wait for its client all the time";
    EXPECT_EQ(reader.bytes(), kBodyBytes);
    EXPECT_LT(slow_bytes, kBodyBytes);
    EXPECT_EQ(cut() - cut_before, 1u);
    return;
  }
  FAIL() << "in none of " << kAttempts << " attempts did this machine let an honest client run";
}

TEST_F(Http1, AConnectionAtRestIsClosedAfterItsTime) {
  Origin origin(Origin::says("x"));
  edge_.model.listeners[0].idle_timeout_ms = 100;
  start(origin);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/"));
  EXPECT_EQ(read_answer(wire).status, 200);
  EXPECT_TRUE(wire.at_end());
}

}  // namespace tidegate::l7::test::http1_test
