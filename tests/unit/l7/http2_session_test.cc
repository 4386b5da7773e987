// SPDX-License-Identifier: Apache-2.0
// Http2Session: frames by hand into one session, and what it tells and sends. Clients and backends by nghttp2 are in
// the tests of the connections.
#include "l7/h2/session.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/event_loop.h"
#include "l7/h2/headers_frame.h"
#include "l7/limits.h"

namespace tidegate::l7::http2_session_test {

using Stop = Http2Session::Stop;
using Role = Http2Session::Role;

std::string u32(uint32_t value) {
  char out[4];
  put_u32(out, value);
  return {out, 4};
}

std::string frame(FrameType type, uint8_t flags, int32_t stream, const std::string& payload) {
  char head[kFrameHeadBytes];
  put_frame_head(head, {static_cast<uint32_t>(payload.size()), type, flags, stream});
  return std::string(head, sizeof head) + payload;
}

std::string setting(SettingsId id, uint32_t value) { return std::string(1, '\0') + static_cast<char>(id) + u32(value); }

constexpr uint8_t kEndStream = FrameFlags::end_stream, kEndHeaders = FrameFlags::end_headers, kAck = FrameFlags::ack;
const std::string kGet =
    "\x82\x86\x84\x41\x01"
    "a";  // GET http://a/
const std::string kPost =
    "\x83\x86\x84\x41\x01"
    "a";
const std::string kAnswer = "\x88";  // 200
std::string settings(const std::string& payload = {}) { return frame(FrameType::settings, 0, 0, payload); }
std::string head(int32_t id, const std::string& block, uint8_t flags = kEndStream | kEndHeaders) {
  return frame(FrameType::headers, flags, id, block);
}
std::string data(int32_t id, const std::string& content, uint8_t flags = 0) {
  return frame(FrameType::data, flags, id, content);
}

struct Stream final : Http2Stream {
  std::string content;
  bool whole = true, trailers = false;
};

struct Sent {
  FrameHead head;
  std::string payload;
};

// A session, what it tells as words, and its other end.
class Session final : public Http2Session::User, public IoHandler {
 public:
  explicit Session(Role role, std::initializer_list<Http2Session::Setting> own = {}, size_t window = kHttp2FirstWindow)
      : session(role, *this, own, window), transport_(loop_, blocks_) {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    EXPECT_TRUE(transport_.open(UniqueFd(fds[0]), this));
    peer_ = UniqueFd(fds[1]);
    if (role == Role::server) {
      EXPECT_EQ(session.receive(std::string(kHttp2Preface) + settings()), Stop::none);
    } else {
      EXPECT_EQ(session.receive(settings()), Stop::none);
    }
    sent();
  }
  // The frames that it sends now.
  std::vector<Sent> sent() {
    std::string bytes;
    for (;;) {
      session.send(transport_, 65'536);
      transport_.flush();
      char chunk[65'536];
      const ssize_t got = ::recv(peer_.get(), chunk, sizeof chunk, 0);
      if (got <= 0) break;
      bytes.append(chunk, static_cast<size_t>(got));
    }
    if (bytes.starts_with(kHttp2Preface)) bytes.erase(0, kHttp2Preface.size());
    std::vector<Sent> frames;
    while (bytes.size() >= kFrameHeadBytes) {
      const FrameHead head = read_frame_head(bytes.data());
      frames.push_back({head, bytes.substr(kFrameHeadBytes, head.length)});
      bytes.erase(0, kFrameHeadBytes + head.length);
    }
    return frames;
  }
  std::string sent_words() {
    std::string words;
    for (const Sent& each : sent())
      words += std::to_string(static_cast<int>(each.head.type)) + ":" + std::to_string(each.head.stream) + " ";
    return words;
  }
  // The error of its GOAWAY.
  std::string goaway() {
    for (const Sent& each : sent()) {
      if (each.head.type == FrameType::goaway) return name(static_cast<Http2Error>(read_u32(each.payload.data() + 4)));
    }
    return "none";
  }
  Stream& request(std::string_view method = "GET", bool has_content = false) {
    Stream& made = *streams.emplace_back(std::make_unique<Stream>());
    EXPECT_TRUE(session.open(made, method, has_content));
    return made;
  }
  Stream& stream(int32_t id) {
    for (const auto& each : streams) {
      if (each->id() == id) return *each;
    }
    throw std::out_of_range("no such stream");
  }

  Http2Session session;
  std::vector<std::unique_ptr<Stream>> streams;  // they stay after they are closed
  std::string told;

 private:
  void tell(const Http2Stream& stream, const std::string& what) { told += std::to_string(stream.id()) + what + ' '; }
  void on_io(uint32_t events) override { transport_.note(events); }
  Http2Stream& open_stream(int32_t) override { return *streams.emplace_back(std::make_unique<Stream>()); }
  bool on_field(Http2Stream&, const Http2Field&) override { return session.block_bytes() < 100'000; }
  bool on_bad_field(Http2Stream& stream) override {
    tell(stream, "bad");
    return true;
  }
  void on_head(Http2Stream& stream, bool ends) override { tell(stream, ends ? "head." : "head"); }
  void on_malformed(Http2Stream& stream, bool whole) override { tell(stream, whole ? "malformed" : "malformed-field"); }
  void on_data(Http2Stream& stream, std::string_view bytes) override { received[stream.id()] += bytes; }
  void on_content_end(Http2Stream& stream) override { tell(stream, "end"); }
  void on_goaway(int32_t last) override { told += "goaway" + std::to_string(last) + ' '; }
  void write_head(Http2Stream& stream, bool ends, ProxyTransport& transport) override {
    HeadersFrame frame(session.encoder(), 100, 1);
    frame.add(":status", "200");
    frame.send(transport, stream.id(), ends);
  }
  Http2Content content_of(const Http2Stream& of) const override {
    const auto& stream = static_cast<const Stream&>(of);
    return {stream.content.size(), stream.whole, stream.trailers};
  }
  void write_content(Http2Stream& of, size_t bytes, bool, ProxyTransport& transport) override {
    auto& stream = static_cast<Stream&>(of);
    transport.queue(std::string_view(stream.content).substr(0, bytes));
    stream.content.erase(0, bytes);
  }
  void on_closed(Http2Stream& stream, Http2Error error) override { tell(stream, std::string("closed:") + name(error)); }

  EventLoop loop_;
  BlockPool blocks_;
  ProxyTransport transport_;
  UniqueFd peer_;

 public:
  std::map<int32_t, std::string> received;
};

TEST(Http2Session, EndsTheConnectionForEachFaultOfIt) {
  const std::string eight(8, '\0'), four = u32(0);
  const std::pair<std::string, const char*> faults[] = {
      {frame(FrameType::data, 0, 0, "x"), "PROTOCOL_ERROR"},
      {data(1, "x"), "PROTOCOL_ERROR"},  // idle
      {head(1, kGet) + data(1, "x"), "STREAM_CLOSED"},
      {head(1, kGet) + head(1, kGet), "STREAM_CLOSED"},
      {head(0, kGet), "PROTOCOL_ERROR"},
      {head(2, kGet), "PROTOCOL_ERROR"},
      {head(1, "\xbe"), "COMPRESSION_ERROR"},
      {head(1, "\x40\x01"), "COMPRESSION_ERROR"},
      {head(1, "", kEndHeaders | FrameFlags::padded), "FRAME_SIZE_ERROR"},
      {head(1,
            "\x09"
            "1234",
            kEndHeaders | FrameFlags::padded),
       "PROTOCOL_ERROR"},
      {head(1, "1234", kEndHeaders | FrameFlags::priority), "FRAME_SIZE_ERROR"},
      {head(1, u32(1) + "\x10" + kGet, kEndHeaders | FrameFlags::priority), "PROTOCOL_ERROR"},
      {head(1, kPost, kEndHeaders) + data(1, "", FrameFlags::padded), "PROTOCOL_ERROR"},
      {head(1, kPost, kEndHeaders) + data(1,
                                          "\x03"
                                          "12",
                                          FrameFlags::padded),
       "PROTOCOL_ERROR"},
      {head(1, kGet, kEndStream) + head(3, kGet), "PROTOCOL_ERROR"},  // not CONTINUATION
      {head(1, kGet, kEndStream) + frame(FrameType::continuation, kEndHeaders, 3, ""), "PROTOCOL_ERROR"},
      {frame(FrameType::continuation, kEndHeaders, 1, ""), "PROTOCOL_ERROR"},
      {head(1, kGet, kEndStream) + frame(static_cast<FrameType>(0x20), 0, 0, ""), "PROTOCOL_ERROR"},
      {frame(FrameType::priority, 0, 1, four), "FRAME_SIZE_ERROR"},
      {frame(FrameType::priority, 0, 0, four + "1"), "PROTOCOL_ERROR"},
      {frame(FrameType::priority, 0, 1, u32(1) + "1"), "PROTOCOL_ERROR"},
      {frame(FrameType::rst_stream, 0, 1, "123"), "FRAME_SIZE_ERROR"},
      {frame(FrameType::rst_stream, 0, 0, four), "PROTOCOL_ERROR"},
      {frame(FrameType::rst_stream, 0, 1, four), "PROTOCOL_ERROR"},  // idle
      {frame(FrameType::settings, 0, 1, ""), "PROTOCOL_ERROR"},
      {settings("12345"), "FRAME_SIZE_ERROR"},
      {frame(FrameType::settings, kAck, 0, "123456"), "FRAME_SIZE_ERROR"},
      {frame(FrameType::settings, kAck, 0, "") + frame(FrameType::settings, kAck, 0, ""), "PROTOCOL_ERROR"},
      {settings(setting(SettingsId::enable_push, 2)), "PROTOCOL_ERROR"},
      {settings(setting(SettingsId::initial_window_size, 0x8000'0000)), "FLOW_CONTROL_ERROR"},
      {settings(setting(SettingsId::max_frame_size, 16'383)), "PROTOCOL_ERROR"},
      {settings(setting(SettingsId::max_frame_size, 16'777'216)), "PROTOCOL_ERROR"},
      {settings(setting(SettingsId::enable_connect_protocol, 2)), "PROTOCOL_ERROR"},
      {settings(setting(SettingsId::no_rfc7540_priorities, 1)) +
           settings(setting(SettingsId::no_rfc7540_priorities, 0)),
       "PROTOCOL_ERROR"},
      {settings(setting(SettingsId::no_rfc7540_priorities, 1)), "PROTOCOL_ERROR"},  // the first SETTINGS had none
      {frame(FrameType::push_promise, kEndHeaders, 1, u32(2)), "PROTOCOL_ERROR"},
      {frame(FrameType::ping, 0, 0, "1234567"), "FRAME_SIZE_ERROR"},
      {frame(FrameType::ping, 0, 1, eight), "PROTOCOL_ERROR"},
      {frame(FrameType::goaway, 0, 0, "1234567"), "FRAME_SIZE_ERROR"},
      {frame(FrameType::goaway, 0, 1, eight), "PROTOCOL_ERROR"},
      {frame(FrameType::window_update, 0, 0, "123"), "FRAME_SIZE_ERROR"},
      {frame(FrameType::window_update, 0, 0, four), "PROTOCOL_ERROR"},
      {frame(FrameType::window_update, 0, 0, u32(0x7fff'ffff)), "FLOW_CONTROL_ERROR"},
      {frame(FrameType::window_update, 0, 1, u32(1)), "PROTOCOL_ERROR"},  // idle
      {frame(static_cast<FrameType>(0x20), 0, 0, std::string(16'385, 'x')), "FRAME_SIZE_ERROR"},
  };
  for (const auto& [bytes, error] : faults) {
    for (const bool split : {false, true}) {
      Session server(Role::server);
      for (size_t at = 0; at < bytes.size(); at += split ? 1 : bytes.size()) {
        EXPECT_EQ(server.session.receive(split ? bytes.substr(at, 1) : bytes), Stop::none);
      }
      EXPECT_EQ(server.goaway(), error) << testing::PrintToString(bytes.substr(0, 40));
      EXPECT_TRUE(server.session.over());
    }
  }
}

TEST(Http2Session, TheFirstFrameIsSettingsAndThePrefaceComesBefore) {
  for (const auto& first :
       {frame(FrameType::ping, 0, 0, std::string(8, 'x')), frame(FrameType::settings, kAck, 0, "")}) {
    Session server(Role::server);  // for its user
    Http2Session fresh(Role::server, server, {}, kHttp2FirstWindow);
    EXPECT_EQ(fresh.receive(std::string(kHttp2Preface) + first), Stop::none);
    EXPECT_TRUE(fresh.wants_to_send());
    EXPECT_FALSE(fresh.over());
    Http2Session other(Role::server, server, {}, kHttp2FirstWindow);
    EXPECT_EQ(other.receive("PRI * HTTP/2.0\r\n\r\nSM\r\nX"), Stop::bad_preface);
  }
}

TEST(Http2Session, AFaultOfAMessageResetsItsStreamAlone) {
  const std::string length_5 =
      "\x0f\x0d\x01"
      "5";
  const std::pair<std::string, std::string> faults[] = {
      {head(1, kGet + "\x04\x01/"), "1malformed-field 1closed:PROTOCOL_ERROR "},                     // :path twice
      {head(1, std::string("\0\x01X\x01y", 5) + kGet), "1malformed-field 1closed:PROTOCOL_ERROR "},  // upper case
      {head(1, kGet + std::string("\0\x0a"
                                  "connection\x01x",
                                  14)),
       "1malformed-field 1closed:PROTOCOL_ERROR "},
      {head(1, kGet + std::string("\0\x02te\x01x", 6)), "1malformed-field 1closed:PROTOCOL_ERROR "},
      {head(1, "\x82\x86\x84"), "1malformed 1closed:PROTOCOL_ERROR "},  // no authority
      {head(1, kGet + length_5), "1malformed 1closed:PROTOCOL_ERROR "},
      {head(1, kPost + length_5, kEndHeaders) + data(1, "123456"), "1head 1closed:PROTOCOL_ERROR "},
      {head(1, kPost + length_5, kEndHeaders) + data(1, "1234", kEndStream), "1head 1closed:PROTOCOL_ERROR "},
      {head(1, kPost, kEndHeaders) + head(1, "", kEndHeaders), "1head 1malformed 1closed:PROTOCOL_ERROR "},
      {head(1, kPost, kEndHeaders) + head(1, "\x84"), "1head 1malformed-field 1closed:PROTOCOL_ERROR "},
      {head(1, kPost, kEndHeaders) + frame(FrameType::window_update, 0, 1, u32(0x7fff'ffff)),
       "1head 1closed:FLOW_CONTROL_ERROR "},
      {head(1, kPost, kEndHeaders) + frame(FrameType::rst_stream, 0, 1, u32(8)), "1head 1closed:CANCEL "},
  };
  for (const auto& [bytes, told] : faults) {
    Session server(Role::server);
    EXPECT_EQ(server.session.receive(bytes), Stop::none);
    server.sent();
    EXPECT_EQ(server.told, told) << testing::PrintToString(bytes.substr(0, 40));
    EXPECT_EQ(server.session.receive(head(3, kGet)), Stop::none);
    EXPECT_TRUE(server.told.ends_with("3head. ")) << server.told;
    EXPECT_EQ(server.goaway(), "none");
  }
}

TEST(Http2Session, TellsTheSameHoweverItsInputIsCut) {
  const std::string padded = std::string("\x05") + "content" + std::string(5, '\0');
  const std::string block = kPost + std::string("\x40\x01n\x03val", 7);
  const std::string input = head(1, block.substr(0, 9), 0) + frame(FrameType::continuation, 0, 1, block.substr(9, 1)) +
                            frame(FrameType::continuation, kEndHeaders, 1, block.substr(10)) +
                            data(1, padded, FrameFlags::padded) + frame(static_cast<FrameType>(0x99), 3, 7, "unknown") +
                            head(3, std::string("\x02\0\0\0\0\x10", 6) + kGet + std::string(2, '\0'),
                                 kEndStream | kEndHeaders | FrameFlags::padded | FrameFlags::priority) +
                            data(1, "", kEndStream) + head(5, kGet + "\xc0");
  for (size_t piece = 1; piece <= input.size(); ++piece) {
    Session server(Role::server);
    for (size_t at = 0; at < input.size(); at += piece) {
      ASSERT_EQ(server.session.receive(input.substr(at, piece)), Stop::none);
    }
    EXPECT_EQ(server.told, "1head 3head. 1end 5head. ") << piece;
    EXPECT_EQ(server.received[1], "content") << piece;
    EXPECT_EQ(server.goaway(), "none") << piece;
  }
}

TEST(Http2Session, PaddingIsGivenBackAndContentWhenItIsTaken) {
  Session server(Role::server);
  ASSERT_EQ(server.session.receive(head(1, kPost, kEndHeaders)), Stop::none);
  size_t content = 0;
  int64_t connection = kHttp2FirstWindow, stream = kHttp2FirstWindow;
  const auto count = [&] {
    for (const Sent& each : server.sent()) {
      ASSERT_EQ(each.head.type, FrameType::window_update);
      (each.head.stream == 0 ? connection : stream) += read_u32(each.payload.data());
    }
  };
  for (int i = 0; i < 1'000; ++i) {
    ASSERT_EQ(server.session.receive(data(1, "\xff" + std::string(300, 'x'), FrameFlags::padded)), Stop::none);
    connection -= 301;
    stream -= 301;
    content += 45;
    if (content > 10'000) server.session.take(server.stream(1), std::exchange(content, 0));
    count();
    ASSERT_GE(connection, 0);
    ASSERT_GE(stream, 0);
  }
  EXPECT_EQ(server.received[1].size(), 45'000u);
  // While we take nothing, the window shrinks to zero. A peer that sends more than the window ends the connection.
  ASSERT_EQ(server.session.receive(data(1, std::string(16'384, 'x')) + data(1, std::string(16'384, 'x')) +
                                   data(1, std::string(16'384, 'x')) + data(1, std::string(16'384, 'x')) +
                                   data(1, std::string(16'384, 'x'))),
            Stop::none);
  EXPECT_EQ(server.goaway(), "FLOW_CONTROL_ERROR");
}

TEST(Http2Session, AStreamThatExceedsItsOwnWindowIsReset) {
  Session server(Role::server, {}, 1'000'000);
  ASSERT_EQ(server.session.receive(head(1, kPost, kEndHeaders)), Stop::none);
  for (int i = 0; i < 5; ++i) ASSERT_EQ(server.session.receive(data(1, std::string(16'384, 'x'))), Stop::none);
  server.sent();
  EXPECT_EQ(server.told, "1head 1closed:FLOW_CONTROL_ERROR ");
}

TEST(Http2Session, AWindowThatShrinksGivesNothingUntilItIsUsed) {
  Session server(Role::server, {}, 100'000);
  ASSERT_EQ(server.session.receive(head(1, kPost, kEndHeaders)), Stop::none);
  server.session.set_connection_window(200'000);
  EXPECT_EQ(server.sent_words(), "8:0 ");
  server.session.set_connection_window(100'000);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(server.session.receive(data(1, std::string(16'384, 'x'))), Stop::none);
  server.session.take_of_connection(3 * 16'384);
  EXPECT_EQ(server.sent_words(), "") << "more than the new window is still open";
}

TEST(Http2Session, StreamsTakeTurnsAndHeadsGoFirst) {
  Session server(Role::server);
  ASSERT_EQ(server.session.receive(head(1, kGet) + head(3, kGet) + head(5, kGet)), Stop::none);
  for (const int32_t id : {1, 3}) {
    server.stream(id).content = std::string(24'000, 'x');
    server.session.add_head(server.stream(id), false);
    server.session.add_content(server.stream(id));
  }
  server.session.add_head(server.stream(5), true);
  EXPECT_EQ(server.sent_words(), "1:1 1:3 1:5 0:1 0:3 0:1 0:3 ");
  EXPECT_EQ(server.told, "1head. 3head. 5head. 5closed:NO_ERROR 1closed:NO_ERROR 3closed:NO_ERROR ");
}

TEST(Http2Session, ContentWaitsForWindowsAndTrailersFollowIt) {
  Session server(Role::server);
  ASSERT_EQ(server.session.receive(settings(setting(SettingsId::initial_window_size, 10)) + head(1, kGet)), Stop::none);
  Stream& stream = server.stream(1);
  stream.content = std::string(30, 'x');
  stream.trailers = true;
  server.session.add_head(stream, false);
  server.session.add_content(stream);
  EXPECT_EQ(server.sent_words(), "4:0 1:1 0:1 ");
  EXPECT_EQ(stream.content.size(), 20u);
  EXPECT_EQ(server.session.receive(settings(setting(SettingsId::initial_window_size, 5))), Stop::none);
  EXPECT_EQ(stream.send_window(), -5);
  EXPECT_EQ(server.session.receive(frame(FrameType::window_update, 0, 1, u32(5))), Stop::none);
  EXPECT_EQ(server.sent_words(), "4:0 ") << "the window is still shut";
  EXPECT_EQ(server.session.receive(settings(setting(SettingsId::initial_window_size, 100))), Stop::none);
  EXPECT_EQ(server.sent_words(), "4:0 0:1 1:1 ");
  EXPECT_EQ(server.told, "1head. 1closed:NO_ERROR ");
}

TEST(Http2Session, AResetTakesThePlaceOfWhatWaits) {
  Session server(Role::server);
  ASSERT_EQ(server.session.receive(head(1, kPost, kEndHeaders)), Stop::none);
  Stream& stream = server.stream(1);
  stream.content = "content";
  server.session.add_head(stream, false);
  server.session.add_content(stream);
  server.session.reset(stream, Http2Error::internal_error);
  server.session.reset(stream, Http2Error::cancel);
  ASSERT_EQ(server.session.receive(data(1, "late") + head(1, "\x84")), Stop::none) << "it crossed the reset";
  EXPECT_EQ(server.sent_words(), "3:1 ");
  EXPECT_EQ(server.told, "1head 1closed:INTERNAL_ERROR ");
  ASSERT_EQ(server.session.receive(data(1, "later") + frame(FrameType::window_update, 0, 1, u32(1))), Stop::none);
  EXPECT_EQ(server.goaway(), "none");
}

TEST(Http2Session, StreamsBeyondTheLimitAreRefusedAndLaterEndTheConnection) {
  Session server(Role::server, {{SettingsId::max_concurrent_streams, 2}});
  ASSERT_EQ(server.session.receive(head(1, kGet) + head(3, kGet) + head(5, kGet + "\x40\x01n\x01v")), Stop::none);
  const std::vector<Sent> refused = server.sent();
  ASSERT_EQ(refused.size(), 1u);
  EXPECT_EQ(refused[0].head.stream, 5);
  EXPECT_EQ(refused[0].payload, u32(static_cast<uint32_t>(Http2Error::refused_stream)));
  EXPECT_EQ(server.session.receive(frame(FrameType::settings, kAck, 0, "") + head(7, kGet)), Stop::none);
  EXPECT_EQ(server.goaway(), "PROTOCOL_ERROR");
}

TEST(Http2Session, AfterGoawayLaterRequestsAreDroppedAndTheTableStaysRight) {
  Session server(Role::server);
  ASSERT_EQ(server.session.receive(head(1, kPost, kEndHeaders)), Stop::none);
  server.session.announce_goaway();
  ASSERT_EQ(server.session.receive(head(3, kGet)), Stop::none);
  server.session.goaway();
  ASSERT_EQ(server.session.receive(head(5, kGet + "\x40\x01n\x01v") + head(1, "\xbe")), Stop::none);
  EXPECT_EQ(server.told, "1head 3head. 1head. ");
  const std::vector<Sent> sent = server.sent();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].payload.substr(0, 4), u32(0x7fff'ffff));
  EXPECT_EQ(sent[1].payload.substr(0, 4), u32(3));
  EXPECT_FALSE(server.session.over()) << "two streams are open";
}

TEST(Http2Session, FloodsOfContinuationAndOfAcknowledgementsStop) {
  Session server(Role::server);
  std::string flood = head(1, kGet, kEndStream);
  for (size_t i = 0; i < kHttp2Continuations; ++i) flood += frame(FrameType::continuation, 0, 1, "");
  EXPECT_EQ(server.session.receive(flood), Stop::none);
  EXPECT_EQ(server.session.receive(frame(FrameType::continuation, 0, 1, "")), Stop::flood);
  Session other(Role::server);
  const std::string ping = frame(FrameType::ping, 0, 0, "12345678");
  for (size_t i = 0; i < kHttp2UnsentAcknowledgements; ++i) ASSERT_EQ(other.session.receive(ping), Stop::none);
  EXPECT_EQ(other.session.receive(ping), Stop::flood);
  Session third(Role::server);
  std::string many;
  for (size_t i = 0; i <= kHttp2Settings; ++i) many += setting(SettingsId::max_frame_size, 16'384);
  EXPECT_EQ(third.session.receive(settings(many)), Stop::none);
  EXPECT_EQ(third.goaway(), "ENHANCE_YOUR_CALM");
}

TEST(Http2Session, ABlockThatIsTooLargeStops) {
  Session server(Role::server);
  const std::string block =
      kGet + std::string("\x40\x01n\x7f\xe9\x06", 6) + std::string(1'000, 'v') + std::string(100, '\xbe');
  EXPECT_EQ(server.session.receive(head(1, block)), Stop::header_bytes);
}

TEST(Http2Session, AClientSendsNoMoreRequestsThanThePeerTakes) {
  Session client(Role::client);
  ASSERT_EQ(client.session.receive(settings(setting(SettingsId::max_concurrent_streams, 2))), Stop::none);
  for (int i = 0; i < 4; ++i) client.request();
  EXPECT_EQ(client.sent_words(), "4:0 1:1 1:3 ");
  ASSERT_EQ(client.session.receive(head(3, kAnswer)), Stop::none);
  EXPECT_EQ(client.sent_words(), "1:5 ");
  client.session.leave(client.stream(1));
  EXPECT_EQ(client.sent_words(), "3:1 1:7 ");
  client.session.leave(client.request());
  EXPECT_EQ(client.sent_words(), "") << "it was not sent";
  ASSERT_EQ(client.session.receive(head(1, kAnswer) + data(5, "")), Stop::none);
  EXPECT_EQ(client.goaway(), "PROTOCOL_ERROR") << "content before its head";
}

// §5.1: the stream is idle, although we know its id already.
TEST(Http2Session, NothingMayComeForARequestThatWasNotSent) {
  for (const std::string& early : {head(3, kAnswer), data(3, "x"), frame(FrameType::rst_stream, 0, 3, u32(8)),
                                   frame(FrameType::window_update, 0, 3, u32(1))}) {
    Session client(Role::client);
    ASSERT_EQ(client.session.receive(settings(setting(SettingsId::max_concurrent_streams, 1))), Stop::none);
    for (int i = 0; i < 2; ++i) client.request();
    EXPECT_EQ(client.sent_words(), "4:0 1:1 ");
    EXPECT_EQ(client.session.receive(early), Stop::none);
    EXPECT_EQ(client.goaway(), "PROTOCOL_ERROR");
    EXPECT_EQ(client.told, "");
  }
}

TEST(Http2Session, GoawayClosesWhatWillNotBeAnswered) {
  Session client(Role::client);
  ASSERT_EQ(client.session.receive(settings(setting(SettingsId::max_concurrent_streams, 2))), Stop::none);
  for (int i = 0; i < 3; ++i) client.request();
  client.sent();
  ASSERT_EQ(client.session.receive(frame(FrameType::goaway, 0, 0, u32(1) + u32(0) + "debug")), Stop::none);
  EXPECT_EQ(client.told.substr(0, 8), "goaway1 ");
  EXPECT_NE(client.told.find("3closed:REFUSED_STREAM"), std::string::npos);
  EXPECT_NE(client.told.find("5closed:REFUSED_STREAM"), std::string::npos);
  EXPECT_FALSE(client.session.over());
  ASSERT_EQ(client.session.receive(head(1, kAnswer)), Stop::none);
  EXPECT_TRUE(client.session.over());
}

TEST(Http2Session, AnswersAreJudgedByTheirRequest) {
  const std::string length_5 =
                        "\x0f\x0d\x01"
                        "5",
                    early = std::string(
                        "\x08\x03"
                        "103",
                        5);
  struct Case {
    const char* method;
    std::string bytes;
    std::string told;
  };
  const Case cases[] = {
      {"HEAD", head(1, kAnswer + length_5), "1head. 1closed:NO_ERROR "},
      {"GET", head(1, kAnswer + length_5), "1malformed 1closed:PROTOCOL_ERROR "},
      {"GET", head(1, kAnswer + length_5, kEndHeaders) + data(1, "12345", kEndStream), "1head 1end 1closed:NO_ERROR "},
      {"GET", head(1, early, kEndHeaders) + head(1, kAnswer), "1head 1head. 1closed:NO_ERROR "},
      {"GET", head(1, early), "1malformed 1closed:PROTOCOL_ERROR "},
      {"GET", head(1, early, kEndHeaders) + data(1, "x"), "1head 1closed:PROTOCOL_ERROR "},
      {"GET", head(1, "\x84"), "1malformed-field 1closed:PROTOCOL_ERROR "},
      {"GET", head(1, ""), "1malformed 1closed:PROTOCOL_ERROR "},
      {"GET",
       head(1, std::string("\x08\x02"
                           "20",
                           4)),
       "1malformed-field 1closed:PROTOCOL_ERROR "},
      {"GET", head(1, "\x89" + length_5), "1malformed-field 1closed:PROTOCOL_ERROR "},  // 204
      {"CONNECT", head(1, kAnswer + length_5, kEndHeaders) + data(1, "any length", kEndStream),
       "1head 1end 1closed:NO_ERROR "},
  };
  for (const Case& each : cases) {
    Session client(Role::client);
    client.request(each.method);
    client.sent();
    EXPECT_EQ(client.session.receive(each.bytes), Stop::none);
    client.sent();
    EXPECT_EQ(client.told, each.told) << each.method << ' ' << testing::PrintToString(each.bytes);
  }
}

}  // namespace tidegate::l7::http2_session_test
