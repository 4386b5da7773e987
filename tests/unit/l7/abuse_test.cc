// SPDX-License-Identifier: Apache-2.0
// What one connection can take from a worker. Each attack runs beside a bystander on the same worker, and each limit
// has a client that it must not hurt. HTTP/2 frames are written by hand, because no library would send these.
#include <gtest/gtest.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <optional>

#include "conf/model.h"
#include "conf/model/node.h"
#include "core/clock.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::abuse_test {

enum Type : uint8_t {
  kData,
  kHeaders,
  kPriority,
  kResetStream,
  kSettings,
  kPush,
  kPing,
  kGoAway,
  kWindowUpdate,
  kContinuation,
  kUnknown = 0x20
};
constexpr uint8_t kEndStream = 1, kAck = 1, kEndHeaders = 4;
constexpr uint32_t kCalm = 11;  // ENHANCE_YOUR_CALM

std::string u32(uint32_t value) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
  return out;
}

std::string frame(uint8_t type, uint8_t flags, uint32_t stream, std::string_view payload) {
  std::string out = u32(static_cast<uint32_t>(payload.size())).substr(1);
  out.push_back(static_cast<char>(type));
  out.push_back(static_cast<char>(flags));
  return out + u32(stream) + std::string(payload);
}

// An HPACK integer (RFC 7541 §5.1) in the low bits of a first byte.
std::string hpack_integer(uint8_t first, unsigned bits, size_t value) {
  const size_t most = (1u << bits) - 1;
  std::string out;
  if (value < most) return {static_cast<char>(first | value)};
  out.push_back(static_cast<char>(first | most));
  for (value -= most; value >= 128; value >>= 7) out.push_back(static_cast<char>(128 | (value & 127)));
  out.push_back(static_cast<char>(value));
  return out;
}

std::string literal(std::string_view text) { return hpack_integer(0, 7, text.size()) + std::string(text); }
std::string field(std::string_view name, std::string_view value) {
  return std::string(1, '\0') + literal(name) + literal(value);
}
// The field goes into the dynamic table as its newest entry, so kNewest refers to it.
std::string indexed_field(std::string_view name, std::string_view value) {
  return std::string(1, '\x40') + literal(name) + literal(value);
}
constexpr char kNewest = '\xbe';

std::string request(std::string_view path, std::string_view method = "GET") {
  return field(":method", method) + field(":scheme", "http") + field(":authority", "a.test") + field(":path", path);
}

struct Frame {
  uint8_t type = 0, flags = 0;
  uint32_t stream = 0;
  std::string payload;
};

class RawHttp2 {
 public:
  explicit RawHttp2(const Endpoint& endpoint) : wire_(Wire::connect(endpoint)) {
    const int one = 1;
    ::setsockopt(wire_.fd(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    wire_.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(kSettings, 0, 0, ""));
  }
  bool send(std::string_view bytes) { return wire_.send(bytes); }
  uint32_t open(std::string_view head, bool ends = true) {
    next_ += 2;
    send(frame(kHeaders, kEndHeaders | (ends ? kEndStream : 0), next_, head));
    return next_;
  }
  uint32_t next_id() { return next_ += 2; }
  // Returns the next frame, or none if the connection has ended.
  std::optional<Frame> read() {
    const std::string head = wire_.read_exactly(9);
    if (head.size() < 9) return std::nullopt;
    const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(head[i])); };
    Frame out;
    out.type = static_cast<uint8_t>(head[3]);
    out.flags = static_cast<uint8_t>(head[4]);
    out.stream = (byte(5) << 24 | byte(6) << 16 | byte(7) << 8 | byte(8)) & 0x7fffffff;
    out.payload = wire_.read_exactly(byte(0) << 16 | byte(1) << 8 | byte(2));
    return out;
  }
  // The error code of the GOAWAY that ends the connection.
  std::optional<uint32_t> read_goaway() {
    while (const std::optional<Frame> got = read()) {
      if (got->type == kGoAway) return static_cast<uint8_t>(got->payload[7]);
    }
    return std::nullopt;
  }
  // Sends `bytes` again and again until the peer takes no more, at most `times` times. Returns how many times it was
  // taken.
  size_t flood(const std::string& bytes, size_t times) {
    size_t sent = 0;
    while (sent < times && send(bytes) && !ended()) ++sent;
    return sent;
  }
  // Reads what is available without waiting. Returns true once GOAWAY or the end has come.
  bool ended() {
    pollfd look{wire_.fd(), POLLIN, 0};
    while (!goaway && ::poll(&look, 1, 0) > 0) {
      const std::optional<Frame> got = read();
      if (!got) return true;
      if (got->type == kGoAway) goaway = static_cast<uint8_t>(got->payload[7]);
    }
    return goaway.has_value();
  }
  std::optional<uint32_t> goaway;

 private:
  Wire wire_;
  uint32_t next_ = static_cast<uint32_t>(-1);
};

class Abuse : public ::testing::Test {
 protected:
  void start(Origin& origin) {
    edge_.add_fixed("/fixed", 204);
    edge_.add_route("/*", edge_.add_pool("p", {origin.endpoint()}));
    edge_.start();
  }
  // The bystander: a client on the same worker.
  void expect_bystander_is_served() { EXPECT_EQ(ask(edge_.endpoint(), get("/fixed")).status, 204); }
  uint64_t floods(const std::string& reason) {
    return edge_.metric("tidegate_l7_http2_floods_total{reason=\"" + reason + "\"}");
  }
  uint64_t arena_bytes() { return edge_.metric("tidegate_l7_arena_bytes"); }
  Edge edge_;
};

// --- cookies in many pieces

TEST_F(Abuse, CrumbsOfACookieCostTheirLengthAndTheirMemoryGoesBack) {
  std::atomic<size_t> cookie_bytes{0};
  Origin origin([&](const std::string& head, Wire& wire) {
    const size_t at = head.find("cookie: ");
    cookie_bytes = head.find("\r\n", at) - at - 8;
    return !wire.at_end();
  });
  start(origin);
  ASSERT_EQ(ask(edge_.endpoint(), get("/fixed")).status, 204);
  const uint64_t before = arena_bytes();
  {
    RawHttp2 client(edge_.endpoint());
    std::string head = request("/");
    const std::string cookie = "c=" + std::string(32, 'v');
    head += indexed_field("cookie", cookie) + std::string(439, kNewest);
    client.open(head);
    for (int i = 1; i < 120; ++i) client.open(request("/") + std::string(440, kNewest));
    ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 120; }));
    EXPECT_EQ(cookie_bytes, 440 * cookie.size() + 439 * 2);
    EXPECT_GT(before, 0u);
    EXPECT_LT(arena_bytes() - before, 120u * 100 * 1024);
    expect_bystander_is_served();
  }
  EXPECT_TRUE(edge_.run_until([&] { return edge_.metric("tidegate_l7_client_connections") == 0; }));
  const uint64_t over_ns = monotonic_ns();
  EXPECT_TRUE(edge_.run_until([&] { return arena_bytes() < before + (1 << 20); }));
  EXPECT_LT(monotonic_ns() - over_ns, 5 * kNsPerS);  // it takes a second on an idle machine
}

TEST_F(Abuse, AClientWithSixtyCookiesIsServed) {
  std::string got;
  Origin origin([&](const std::string& head, Wire& wire) {
    const size_t at = head.find("cookie: ") + 8;
    got = head.substr(at, head.find("\r\n", at) - at);
    return wire.send(Origin::ok("served"));
  });
  start(origin);
  RawHttp2 client(edge_.endpoint());
  std::string head = request("/"), joined;
  for (int i = 0; i < 60; ++i) {
    const std::string cookie = "name" + std::to_string(i) + "=" + std::string(200, 'v');
    head += field("cookie", cookie);
    joined += (i == 0 ? "" : "; ") + cookie;
  }
  const uint32_t id = client.open(head);
  std::optional<Frame> answer;
  while ((answer = client.read()) && answer->type != kData) continue;
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->stream, id);
  EXPECT_EQ(answer->payload, "served");
  EXPECT_EQ(got, joined);
}

// --- header blocks

TEST_F(Abuse, AHeaderBlockFarBeyondItsBoundEndsTheConnection) {
  Origin origin(Origin::says("reached"));
  start(origin);
  RawHttp2 client(edge_.endpoint());
  const std::string large = indexed_field("x", std::string(3900, 'v'));
  std::string attack = frame(kHeaders, kEndStream, 1, request("/") + large);
  // 9 references exceed 32 KiB, and 17 exceed 64 KiB more.
  for (int i = 0; i < 6; ++i) attack += frame(kContinuation, 0, 1, std::string(16000, kNewest));
  client.send(attack);
  EXPECT_EQ(client.read_goaway(), std::optional<uint32_t>(kCalm));
  EXPECT_EQ(floods("header_bytes"), 1u);
  EXPECT_EQ(origin.requests(), 0u);
  expect_bystander_is_served();
}

TEST_F(Abuse, TrailersHaveTheSameBound) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start(origin);
  RawHttp2 client(edge_.endpoint());
  client.open(request("/", "POST") + indexed_field("x", std::string(3900, 'v')), false);
  client.send(frame(kHeaders, kEndStream | kEndHeaders, 1, std::string(16000, kNewest)));
  EXPECT_EQ(client.read_goaway(), std::optional<uint32_t>(kCalm));
  EXPECT_EQ(floods("header_bytes"), 1u);
}

TEST_F(Abuse, AClientWhoseCookiesHaveGrownTooLongReadsThat) {
  Origin origin(Origin::says("reached"));
  start(origin);
  RawHttp2 client(edge_.endpoint());
  std::string block = request("/");
  for (int i = 0; i < 12; ++i) block += field("cookie", std::string(4000, 'v'));
  const uint32_t id = client.next_id();
  client.send(frame(kHeaders, kEndStream, id, block.substr(0, 16000)) +
              frame(kContinuation, 0, id, block.substr(16000, 16000)) +
              frame(kContinuation, kEndHeaders, id, block.substr(32000)));
  std::optional<Frame> answer;
  while ((answer = client.read()) && answer->type != kHeaders) continue;
  ASSERT_TRUE(answer);
  EXPECT_NE(answer->payload.find("431"), std::string::npos);
  const uint32_t next = client.open(request("/fixed"));
  while ((answer = client.read()) && answer->stream != next) continue;
  EXPECT_TRUE(answer);
}

// --- frames that make no progress

class FloodOf : public Abuse, public ::testing::WithParamInterface<std::pair<const char*, std::string>> {};

TEST_P(FloodOf, FramesThatMoveNothingOnEndTheConnectionAfterSomeHundreds) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start(origin);
  RawHttp2 client(edge_.endpoint());
  client.open(request("/", "POST"), false);
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  // A hundred at a time, so that the client is stopped close to the limit.
  std::string hundred;
  for (int i = 0; i < 100; ++i) hundred += GetParam().second;
  const size_t taken = client.flood(hundred, 100'000);
  expect_bystander_is_served();
  if (!client.goaway) client.goaway = client.read_goaway();
  EXPECT_EQ(client.goaway, std::optional<uint32_t>(kCalm));
  EXPECT_LT(taken, 100'000u);
  EXPECT_EQ(floods("idle_frames"), 1u);
}

INSTANTIATE_TEST_SUITE_P(Http2, FloodOf,
                         ::testing::Values(std::pair("WindowUpdate", frame(kWindowUpdate, 0, 0, u32(1))),
                                           std::pair("StreamWindowUpdate", frame(kWindowUpdate, 0, 1, u32(1))),
                                           std::pair("EmptyData", frame(kData, 0, 1, "")),
                                           std::pair("Priority", frame(kPriority, 0, 1, std::string(5, '\0'))),
                                           std::pair("Ping", frame(kPing, 0, 0, "12345678")),
                                           std::pair("PingAck", frame(kPing, kAck, 0, "12345678")),
                                           std::pair("Settings", frame(kSettings, 0, 0, "")),
                                           std::pair("Unknown", frame(kUnknown, 0, 0, ""))),
                         [](const auto& info) { return info.param.first; });

// The client opens the window byte by byte while there is much to send, so each update causes a frame of one byte.
TEST_F(Abuse, AWindowOpenedByTheByteAtFullSpeedEndsTheConnection) {
  Origin origin(Origin::says(std::string(200'000, 'x')));
  start(origin);
  RawHttp2 client(edge_.endpoint());
  client.send(frame(kSettings, 0, 0, std::string("\0\4\0\0\0\0", 6)));
  client.open(request("/"));
  std::string hundred;
  for (int i = 0; i < 100; ++i) hundred += frame(kWindowUpdate, 0, 1, u32(1));
  client.flood(hundred, 1000);
  if (!client.goaway) client.goaway = client.read_goaway();
  EXPECT_EQ(client.goaway, std::optional<uint32_t>(kCalm));
}

TEST_F(Abuse, AReaderThatOpensItsWindowLittleByLittleGetsAll) {
  const std::string body(600'000, 'x');
  Origin origin(Origin::says(body));
  start(origin);
  RawHttp2 client(edge_.endpoint());
  client.send(frame(kSettings, 0, 0, std::string("\0\4\0\0\1\0", 6)));
  client.open(request("/"));
  size_t got = 0;
  while (const std::optional<Frame> answer = client.read()) {
    if (answer->type != kData) continue;
    got += answer->payload.size();
    if ((answer->flags & kEndStream) != 0) break;
    const std::string more = u32(static_cast<uint32_t>(answer->payload.size()));
    client.send(frame(kWindowUpdate, 0, 0, more) + frame(kWindowUpdate, 0, 1, more));
  }
  EXPECT_EQ(got, body.size());
}

// As gRPC does: small messages, one DATA frame each, and pings between them to measure the bandwidth.
TEST_F(Abuse, AStreamOfManySmallMessagesAndPingsIsCarried) {
  constexpr size_t kMessages = 20'000;
  const std::string message = std::string("\0\0\0\0\x5", 5) + "hello";
  std::atomic<size_t> got{0};
  Origin origin([&](const std::string&, Wire& wire) {
    for (;;) {
      const std::string line = wire.read_until("\r\n");
      const size_t bytes = line.empty() ? 0 : std::stoul(line, nullptr, 16);
      if (bytes == 0) break;
      got += wire.read_exactly(bytes + 2).size() - 2;
    }
    wire.read_until("\r\n");
    return wire.send(Origin::ok("ok"));
  });
  start(origin);
  RawHttp2 client(edge_.endpoint());
  const uint32_t id = client.open(request("/", "POST"), false);
  size_t window = 65'535, connection_window = 65'535;
  const auto take = [&] {
    const std::optional<Frame> answer = client.read();
    if (!answer) return false;
    if (answer->type == kWindowUpdate) {
      const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(answer->payload[i])); };
      const size_t more = byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
      (answer->stream == 0 ? connection_window : window) += more;
    }
    return answer->type != kGoAway;
  };
  bool alive = true;
  for (size_t i = 0; alive && i < kMessages; ++i) {
    while (alive && std::min(window, connection_window) < message.size()) alive = take();
    window -= message.size();
    connection_window -= message.size();
    alive = alive && client.send(frame(kData, 0, id, message) + (i % 4 == 0 ? frame(kPing, 0, 0, "12345678") : ""));
  }
  client.send(frame(kData, kEndStream, id, ""));
  std::optional<Frame> answer;
  while ((answer = client.read()) && answer->type != kHeaders && answer->type != kGoAway) continue;
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->type, kHeaders);
  EXPECT_EQ(got, kMessages * message.size());
  EXPECT_EQ(floods("idle_frames"), 0u);
}

// --- resets

TEST_F(Abuse, ARequestThatIsResetAsItComesReachesNoBackendAndTheResetCounts) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start(origin);
  for (const bool own : {true, false}) {
    RawHttp2 client(edge_.endpoint());
    std::string attack;
    for (int i = 0; i < 1000; ++i) {
      const uint32_t id = client.next_id();
      attack += frame(kHeaders, kEndHeaders | kEndStream, id, request("/"));
      // Either the client sends the reset, or it causes ours: the window overflows.
      attack += own ? frame(kResetStream, 0, id, u32(8)) : frame(kWindowUpdate, 0, id, u32(0x7fffffff));
    }
    client.send(attack);
    EXPECT_EQ(client.read_goaway(), std::optional<uint32_t>(kCalm)) << own;
    expect_bystander_is_served();
  }
  EXPECT_EQ(floods("resets"), 2u);
  // A turn or a read may end between the two frames of a request. Otherwise, no request reaches the origin.
  EXPECT_LE(origin.connections(), 20u);
  EXPECT_GT(edge_.metric("tidegate_l7_http2_cancelled_total"), 300u);
}

TEST_F(Abuse, ResetsThatAClientsErrorsMakeUsSendHaveAnEnd) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start(origin);
  const std::function<std::string(uint32_t)> errors[] = {
      [](uint32_t id) { return frame(kWindowUpdate, 0, id, u32(0x7fffffff)); },
      [](uint32_t id) { return frame(kData, 0, id, "two"); },  // more bytes than its content-length
  };
  for (const auto& error : errors) {
    RawHttp2 client(edge_.endpoint());
    const size_t before = origin.connections();
    size_t asked = 0;
    for (bool alive = true; alive && asked < 1000; ++asked) {
      const uint32_t id = client.open(request("/", "POST") + field("content-length", "1"), false);
      alive = client.send(error(id));
      for (std::optional<Frame> got; alive;) {  // waits for our reset, so that no two share a turn
        if (!(got = client.read()) || got->type == kGoAway) alive = false;
        if (got && got->type == kResetStream && got->stream == id) break;
      }
    }
    EXPECT_LT(asked, 600u);  // 200, and 50 more for each second that the test takes
    EXPECT_LT(origin.connections() - before, 600u);
  }
  EXPECT_EQ(floods("resets"), 2u);
}

TEST_F(Abuse, ResetsThatWeAreMadeToSendAreChargedToTheClientsAddress) {
  Origin origin(Origin::says("x"));
  edge_.model.nodes[0].l7.connection_rate_per_client = 1;
  edge_.model.nodes[0].l7.connection_burst_per_client = 100;
  start(origin);
  RawHttp2 client(edge_.endpoint());
  for (int i = 0; i < 120; ++i) {  // fewer than a connection may cause
    const uint32_t id = client.open(request("/", "POST"), false);
    ASSERT_TRUE(client.send(frame(kWindowUpdate, 0, id, u32(0x7fffffff))));
    for (std::optional<Frame> got; !got || got->type != kResetStream || got->stream != id;) {
      ASSERT_TRUE((got = client.read())) << i;
    }
  }
  EXPECT_EQ(floods("resets"), 0u);
  EXPECT_TRUE(Wire::connect(edge_.endpoint()).at_end()) << "no new connection until the debt is paid";
  EXPECT_EQ(edge_.metric("tidegate_l7_client_connections_refused_total{reason=\"client_rate\"}"), 1u);
}

TEST_F(Abuse, AnswersThatBreakOffAreNotTheClientsResets) {
  Origin origin([](const std::string&, Wire& wire) {
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
    return false;
  });
  start(origin);
  RawHttp2 client(edge_.endpoint());
  size_t broken = 0;
  for (; broken < 300; ++broken) {
    const uint32_t id = client.open(request("/"));
    std::optional<Frame> got;
    while ((got = client.read()) && !(got->type == kResetStream && got->stream == id)) continue;
    if (!got) break;
  }
  EXPECT_EQ(broken, 300u);
}

// --- turns

TEST_F(Abuse, PipelinedRequestsAreAllAnsweredATurnAtATime) {
  Origin origin(Origin::says("x"));
  start(origin);
  Wire client = Wire::connect(edge_.endpoint());
  constexpr int kRequests = 1000;
  std::string all;
  for (int i = 0; i < kRequests; ++i) all += get("/fixed");
  std::thread sender([&] { client.send(all); });
  int answered = 0;
  while (answered < kRequests && read_answer(client).status == 204) ++answered;
  sender.join();
  EXPECT_EQ(answered, kRequests);
  EXPECT_GT(edge_.metric("tidegate_l7_turns_ended_total"), 0u);
}

TEST_F(Abuse, ABackendThatSendsInterimAnswersWithoutEndFailsItsExchange) {
  std::string hints;
  for (int i = 0; i < 1000; ++i) hints += "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
  Origin origin([&](const std::string& head, Wire& wire) {
    if (head.find("/few") != std::string::npos) {
      wire.send(hints.substr(0, 20 * (hints.size() / 1000)));
      return wire.send(Origin::ok("few"));
    }
    for (int i = 0; i < 2000 && wire.send(hints); ++i) continue;
    return false;
  });
  start(origin);
  Wire victim = Wire::connect(edge_.endpoint());
  victim.send(get("/endless"));
  expect_bystander_is_served();
  // How many interim answers come before the final one, and the final one.
  const auto read_final = [](Wire& wire, size_t& hints_read) {
    Answer answer = read_answer(wire);
    for (hints_read = 0; answer.status == 103; ++hints_read) answer = read_answer(wire);
    return answer;
  };
  size_t hints_read = 0;
  EXPECT_EQ(read_final(victim, hints_read).status, 502);
  EXPECT_LE(hints_read, kInterimAnswers);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"too_many_interim\"}"), 1u);
  Wire few = Wire::connect(edge_.endpoint());
  few.send(get("/few"));
  EXPECT_EQ(read_final(few, hints_read).body, "few");
  EXPECT_EQ(hints_read, 20u);
}

}  // namespace tidegate::l7::test::abuse_test
