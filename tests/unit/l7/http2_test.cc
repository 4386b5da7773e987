// SPDX-License-Identifier: Apache-2.0
// HTTP/2 on the client's side. The client uses nghttp2 over a blocking socket, with prior knowledge.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <nghttp2/nghttp2.h>

#include <optional>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/route.h"
#include "l7/h2/session.h"
#include "l7/h2/windows.h"
#include "l7/limits.h"
#include "tests/unit/l7/http2_client.h"
#include "tests/unit/l7/log_file.h"
#include "tests/unit/l7/support.h"

namespace tidegate::l7::test::http2_test {

class Http2 : public ::testing::Test {
 protected:
  void start(Origin& origin) {
    edge_.add_route("/*", edge_.add_pool("p", {origin.endpoint()}));
    edge_.start();
  }
  Edge edge_;
};

TEST_F(Http2, CarriesManyStreamsOnOneConnection) {
  Origin origin(
      [](const std::string& head, Wire& wire) { return wire.send(Origin::ok(head.substr(0, head.find("\r\n")))); });
  start(origin);
  Http2Client client(edge_.endpoint());
  std::vector<int32_t> ids;
  for (int i = 0; i < 50; ++i) ids.push_back(client.submit(Http2Client::request("/" + std::to_string(i))));
  for (int i = 0; i < 50; ++i) {
    ASSERT_TRUE(client.finish(ids[static_cast<size_t>(i)]));
    const StreamResult& result = client.result(ids[static_cast<size_t>(i)]);
    EXPECT_EQ(result.body, "GET /" + std::to_string(i) + " HTTP/1.1");
    EXPECT_EQ(result.fields.at(":status"), "200");
    EXPECT_EQ(result.fields.count("connection"), 0u);
  }
  EXPECT_EQ(edge_.metric("tidegate_l7_client_connections_total"), 1u);
}

TEST_F(Http2, CarriesLargeBodiesBothWaysThroughItsWindows) {
  const std::string body(2'000'000, 'b');
  Origin origin([&](const std::string&, Wire& wire) {
    std::string got;
    for (;;) {
      const size_t bytes = std::stoul(wire.read_until("\r\n"), nullptr, 16);
      const std::string chunk = wire.read_exactly(bytes + 2);
      if (bytes == 0) break;
      got += chunk.substr(0, bytes);
    }
    return wire.send(Origin::ok(got));
  });
  start(origin);
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(Http2Client::request("/", "POST"), body);
  ASSERT_TRUE(client.finish(id));
  EXPECT_TRUE(client.result(id).body == body) << client.result(id).body.size();
}

TEST_F(Http2, RefusesWhatCannotBecomeHttp1Unchanged) {
  Origin origin(Origin::says("reached"));
  start(origin);
  const std::vector<std::pair<std::string, std::string>> bad[] = {
      {{"transfer-encoding", "chunked"}}, {{"connection", "close"}}, {{"x", "a\r\nb: c"}},
      {{"host", "other.test"}},           {{"content-length", "7"}},
  };
  for (const auto& fields : bad) {
    Http2Client client(edge_.endpoint(), true);
    Http2Client::Fields request = Http2Client::request("/");
    request.insert(request.end(), fields.begin(), fields.end());
    const int32_t id = client.submit(request);
    client.finish(id);
    const StreamResult& result = client.result(id);
    const bool answered_400 = result.fields.count(":status") != 0 && result.fields.at(":status") == "400";
    EXPECT_TRUE(answered_400 || (result.closed && *result.closed != NGHTTP2_NO_ERROR)) << fields[0].first;
  }
  EXPECT_EQ(origin.requests(), 0u);
}

// Also requests that nghttp2 itself finds malformed, and answers by resetting the stream (RFC 9113 §8.1.1).
TEST_F(Http2, LogsEachRefusedRequestWithItsLineAndAReason) {
  const LogFile log;
  edge_.model.nodes[0].l7.access_log = log.path;
  Origin origin(Origin::says("x"));
  start(origin);
  using Fields = Http2Client::Fields;
  struct Malformed {
    const char* detail;
    Fields fields;
    std::string body;
    Fields trailers;
  };
  const Malformed cases[] = {
      {"malformed", {{":method", "GET"}, {":scheme", "http"}, {":path", "/1"}, {":authority", "a b"}}, "", {}},
      {"malformed",
       {{":method", "GET"}, {":path", "/2"}, {":authority", "a"}, {"x", "y"}, {":scheme", "http"}},
       "",
       {}},
      {"bad_pseudo_field", {{":method", "GET"}, {":path", "/3"}, {":authority", "a"}}, "", {}},
      {"malformed",
       {{":method", "GET"}, {":scheme", "http"}, {":path", "/4"}, {":authority", "a"}, {"te", "x"}},
       "",
       {}},
      {"bad_content_length", with_length(Http2Client::request("/5", "POST"), 5), "abc", {}},
      {"bad_content_length", with_length(Http2Client::request("/6", "POST"), 3), "abcde", {}},
      {"malformed", Http2Client::request("/7", "POST"), "abc", {{"connection", "close"}}},
  };
  for (const Malformed& each : cases) {
    Http2Client client(edge_.endpoint(), true);
    const int32_t id = client.submit(each.fields, each.body, each.trailers);
    client.finish(id);
    EXPECT_EQ(client.result(id).closed, std::optional<uint32_t>(NGHTTP2_PROTOCOL_ERROR)) << each.fields[1].second;
  }
  std::vector<nlohmann::json> lines;
  ASSERT_TRUE(edge_.run_until([&] { return (lines = log.lines()).size() >= std::size(cases); }));
  for (size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(lines[i].value("failure", ""), "bad_request") << lines[i];
    EXPECT_EQ(lines[i].value("failure_detail", ""), cases[i].detail) << lines[i];
    EXPECT_EQ(lines[i].value("status", 0), 400) << lines[i];
    EXPECT_NE(lines[i].dump().find("/" + std::to_string(i + 1)), std::string::npos) << lines[i];
  }
  EXPECT_EQ(edge_.metric("tidegate_l7_requests_refused_total{protocol=\"any\",reason=\"malformed\"}"), 4u);
  EXPECT_EQ(edge_.metric("tidegate_l7_requests_refused_total{protocol=\"any\",reason=\"bad_content_length\"}"), 2u);
  EXPECT_EQ(edge_.metric("tidegate_l7_requests_refused_total{protocol=\"any\",reason=\"bad_pseudo_field\"}"), 1u);
}

TEST_F(Http2, AnAnswerThatBreaksOffResetsItsStreamAlone) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.find("/good") != std::string::npos) return wire.send(Origin::ok("good"));
    wire.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart");
    return false;
  });
  start(origin);
  Http2Client client(edge_.endpoint());
  const int32_t bad = client.submit(Http2Client::request("/bad"));
  ASSERT_TRUE(client.finish(bad));
  EXPECT_EQ(client.result(bad).closed, std::optional<uint32_t>(NGHTTP2_INTERNAL_ERROR));
  const int32_t good = client.submit(Http2Client::request("/good"));
  ASSERT_TRUE(client.finish(good));
  EXPECT_EQ(client.result(good).body, "good");
}

// Some clients continue to write after they have their answer, and read no window update any more. This origin answers
// before the body of the request has come. Closing with unread input would send a reset, which may overtake the answer.
// So it reads on until the proxy closes.
bool answer_early(const std::string&, Wire& wire) {
  wire.send(Origin::ok("early", "connection: close\r\n"));
  wire.read_to_end();
  return false;
}

TEST_F(Http2, AShortRestOfARequestCanBeSentWithoutReadingOnceTheAnswerIsThere) {
  Origin origin(answer_early);
  edge_.add_fixed("/fixed", 204);
  start(origin);
  for (const std::string path : {"/fixed", "/proxied"}) {
    Http2Client client(edge_.endpoint());
    const int32_t id =
        client.submit(with_length(Http2Client::request(path, "POST"), 200'000), std::string(200'000, 'b'));
    ASSERT_TRUE(client.run_until([&] { return client.result(id).answered; })) << path;
    client.send_all();
    EXPECT_EQ(client.unsent_bytes(), 0u) << path;
    ASSERT_TRUE(client.finish(id));
    EXPECT_EQ(client.result(id).closed, std::optional<uint32_t>(NGHTTP2_NO_ERROR));
    EXPECT_EQ(client.result(id).fields.at(":status"), path == "/fixed" ? "204" : "200");
    const int32_t next = client.submit(Http2Client::request("/proxied"));
    ASSERT_TRUE(client.finish(next));
    EXPECT_EQ(client.result(next).body, "early");
  }
}

TEST_F(Http2, AClientIsToldToSendNoMoreOfALongRequestThatIsAnswered) {
  Origin origin(answer_early);
  start(origin);
  Http2Client client(edge_.endpoint());
  const std::string body(8'000'000, 'b');
  const int32_t id = client.submit(with_length(Http2Client::request("/", "POST"), body.size()), body);
  ASSERT_TRUE(client.finish(id));
  EXPECT_TRUE(client.result(id).answered);
  EXPECT_EQ(client.result(id).body, "early");
  EXPECT_EQ(client.result(id).closed, std::optional<uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_GT(client.unsent_bytes(), 4'000'000u);
}

// curl 7.88 considers the answer broken if it reads its end and the reset for the rest of the request together.
TEST_F(Http2, TheResetOfALongRequestComesLaterThanTheEndOfItsAnswer) {
  edge_.model.listeners[0].max_body_bytes = 1'000'000;
  Origin origin(Origin::says("x"));
  start(origin);
  Http2Client client(edge_.endpoint());
  const std::string body(4'000'000, 'b');
  const int32_t id = client.submit(with_length(Http2Client::request("/", "POST"), body.size()), body);
  ASSERT_TRUE(client.run_until([&] { return client.result(id).answered; }));
  EXPECT_EQ(client.result(id).fields.at(":status"), "413");
  EXPECT_FALSE(client.result(id).closed.has_value()) << "in one read with the end of the answer";
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).closed, std::optional<uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_GT(client.unsent_bytes(), 0u) << "it was told to send no more";
}

TEST_F(Http2, TheWindowOfAnUploadGrowsWhileTheBackendTakesIt) {
  Origin origin([&](const std::string&, Wire& wire) {
    wire.read_exactly(8'000'000);
    return wire.send(Origin::ok("x"));
  });
  start(origin);
  Http2Client client(edge_.endpoint());
  const std::string body(8'000'000, 'b');
  const auto upload = [&] { return client.submit(with_length(Http2Client::request("/", "POST"), body.size()), body); };
  const auto window = [&](int32_t id) { return nghttp2_session_get_stream_remote_window_size(client.session(), id); };
  int32_t id = upload(), widest = 0;
  ASSERT_TRUE(client.run_until([&] {
    widest = std::max(widest, window(id));
    return client.result(id).closed.has_value();
  }));
  EXPECT_EQ(client.result(id).fields.at(":status"), "200");
  EXPECT_GT(widest, static_cast<int32_t>(8 * kHttp2StreamWindowBytes));
  EXPECT_LE(widest, static_cast<int32_t>(kHttp2StreamWindowMostBytes));
}

struct UploadStream final : Http2Stream {};

class UploadUser final : public Http2Session::User {
 public:
  std::vector<std::unique_ptr<UploadStream>> streams;

 private:
  Http2Stream& open_stream(int32_t) override { return *streams.emplace_back(std::make_unique<UploadStream>()); }
  bool on_field(Http2Stream&, const Http2Field&) override { return true; }
  bool on_bad_field(Http2Stream&) override { return true; }
  void on_head(Http2Stream&, bool) override {}
  void on_malformed(Http2Stream&, bool) override {}
  void on_data(Http2Stream&, std::string_view) override {}
  void on_content_end(Http2Stream&) override {}
  void write_head(Http2Stream&, bool, ProxyTransport&) override {}
  Http2Content content_of(const Http2Stream&) const override { return {}; }
  void write_content(Http2Stream&, size_t, bool, ProxyTransport&) override {}
  void on_closed(Http2Stream&, Http2Error) override {}
};

// A connection that stays open holds nothing from the budget for uploads that have ended.
TEST(UploadWindows, ShrinkWithTheLastUploadThatMadeThemGrow) {
  UploadUser user;
  Http2Session session(Http2Session::Role::server, user, {}, kHttp2ConnectionWindowBytes);
  const auto head = [](char id) {  // GET, http, "/" and an authority (RFC 7541 C.3.1)
    const std::string block = "\x82\x86\x84\x41\x0fwww.example.com";
    return std::string("\0\0\x14\x01\x04\0\0\0", 8) + id + block;
  };
  const std::string settings("\0\0\0\x04\0\0\0\0\0", 9);
  const std::string opened = std::string(kHttp2Preface) + settings + head(1) + head(3) + head(5);
  ASSERT_EQ(session.receive(opened), Http2Session::Stop::none);
  ASSERT_EQ(user.streams.size(), 3u);
  MemoryBudget budget;
  {
    UploadWindows windows(budget);
    StreamWindow small(kHttp2StreamWindowBytes), one(kHttp2StreamWindowBytes), other(kHttp2StreamWindowBytes);
    for (int i = 0; i < 8; ++i) windows.widen(session, *user.streams[0], one, true);
    for (int i = 0; i < 8; ++i) windows.widen(session, *user.streams[1], other, true);
    const size_t taken = budget.taken();
    EXPECT_GT(taken, kHttp2StreamWindowMostBytes / 2);
    EXPECT_EQ(session.connection_window(), kHttp2ConnectionWindowBytes + static_cast<int64_t>(taken));
    windows.forget(session, small);
    windows.forget(session, one);
    EXPECT_EQ(budget.taken(), taken) << "the other upload goes on";
    windows.forget(session, other);
    EXPECT_EQ(budget.taken(), 0u);
    EXPECT_EQ(session.connection_window(), kHttp2ConnectionWindowBytes);
    StreamWindow next(kHttp2StreamWindowBytes);
    for (int i = 0; i < 8; ++i) windows.widen(session, *user.streams[2], next, true);
    EXPECT_EQ(budget.taken(), taken) << "it grows again";
  }
  EXPECT_EQ(budget.taken(), 0u);
}

TEST_F(Http2, JudgesExpectationsAndTheNumberOfFieldsAsHttp1Does) {
  Origin origin(Origin::says("x"));
  edge_.model.listeners[0].max_fields = 50;
  start(origin);
  Http2Client client(edge_.endpoint());
  const auto status = [&](const Http2Client::Fields& more) {
    Http2Client::Fields fields = Http2Client::request("/");
    fields.insert(fields.end(), more.begin(), more.end());
    const int32_t id = client.submit(fields);
    EXPECT_TRUE(client.finish(id));
    return client.result(id).fields[":status"];
  };
  EXPECT_EQ(status({{"expect", "a pony"}}), "417");
  EXPECT_EQ(status({{"expect", "100-continue"}}), "200");
  Http2Client::Fields many;
  for (int i = 0; i < 48; ++i) many.emplace_back("x-" + std::to_string(i), "v");
  many.emplace_back("cookie", "a=1");
  for (int i = 0; i < 30; ++i) many.emplace_back("cookie", "b=2");  // one field in HTTP/1
  EXPECT_EQ(status(many), "200");
  many.emplace_back("x-more", "v");
  EXPECT_EQ(status(many), "431");
}

TEST_F(Http2, PassesHintsOnAndNoUpgrade) {
  Origin origin([](const std::string& head, Wire& wire) {
    if (head.starts_with("GET /old")) {
      return wire.send(
          "HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n");
    }
    wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
    return wire.send(Origin::ok("x"));
  });
  start(origin);
  Http2Client client(edge_.endpoint());
  const int32_t hinted = client.submit(Http2Client::request("/"));
  ASSERT_TRUE(client.finish(hinted));
  ASSERT_EQ(client.result(hinted).interim.size(), 1u);
  EXPECT_EQ(client.result(hinted).interim[0][":status"], "103");
  EXPECT_EQ(client.result(hinted).interim[0]["link"], "</a.css>");
  EXPECT_EQ(client.result(hinted).fields[":status"], "200");
  EXPECT_EQ(client.result(hinted).body, "x");
  const int32_t old = client.submit(Http2Client::request("/old"));
  ASSERT_TRUE(client.finish(old));
  EXPECT_EQ(client.result(old).fields[":status"], "426");
  EXPECT_EQ(client.result(old).fields.count("upgrade"), 0u);
}

TEST_F(Http2, LongHeadsComeWholeWhateverTableTheClientHas) {
  std::string fields = "X-Short: kept\r\n";
  for (int i = 0; i < 5; ++i) fields += fmt::format("X-Long-{}: {}\r\n", i, std::string(8'000, '~'));
  Origin origin([&](const std::string&, Wire& wire) { return wire.send(Origin::ok("x", fields)); });
  start(origin);
  Http2Client client(edge_.endpoint());
  for (const uint32_t table_bytes : {4'096u, 0u, 100u, 65'536u}) {
    const nghttp2_settings_entry table{NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, table_bytes};
    nghttp2_submit_settings(client.session(), NGHTTP2_FLAG_NONE, &table, 1);
    for (int turn = 0; turn < 3; ++turn) {
      const int32_t stream = client.submit(Http2Client::request("/"));
      ASSERT_TRUE(client.finish(stream)) << table_bytes;
      EXPECT_EQ(client.result(stream).fields["x-short"], "kept") << table_bytes;
      for (int i = 0; i < 5; ++i) {
        EXPECT_EQ(client.result(stream).fields[fmt::format("x-long-{}", i)], std::string(8'000, '~')) << table_bytes;
      }
      EXPECT_EQ(client.result(stream).body, "x");
    }
  }
}

TEST_F(Http2, AClientThatResetsStreamsWithoutEndIsSentAway) {
  Origin origin([](const std::string&, Wire& wire) { return !wire.at_end(); });
  start(origin);
  Http2Client client(edge_.endpoint());
  int32_t last = 0;
  for (int i = 0; i < 2000; ++i) {
    last = client.submit(Http2Client::request("/"));
    client.send_all();
    nghttp2_submit_rst_stream(client.session(), NGHTTP2_FLAG_NONE, last, NGHTTP2_CANCEL);
    client.send_all();
  }
  const int32_t after = client.submit(Http2Client::request("/"));
  client.finish(after);
  EXPECT_EQ(edge_.metric("tidegate_l7_http2_floods_total{reason=\"resets\"}"), 1u);
  EXPECT_LT(origin.requests(), 1000u);
}

TEST_F(Http2, AClientThatTakesNothingIsCutOffWhateverItPings) {
  Origin origin(Origin::says(std::string(1'000'000, 'x')));
  edge_.model.listeners[0].idle_timeout_ms = 100;
  start(origin);
  Http2Client client(edge_.endpoint());
  client.submit(Http2Client::request("/"));
  EXPECT_TRUE(edge_.run_until([&] {
    nghttp2_submit_ping(client.session(), NGHTTP2_FLAG_NONE, nullptr);
    client.send_all();
    return edge_.metric("tidegate_l7_failures_total{reason=\"client_too_slow\"}") == 1;
  }));
}

TEST_F(Http2, AStreamWhoseWindowStaysShutEndsWhileOthersGoOn) {
  Origin origin(Origin::says("x"));
  edge_.model.listeners[0].idle_timeout_ms = 100;
  edge_.add_fixed("/fixed", 204);
  start(origin);
  Http2Client client(edge_.endpoint());
  const nghttp2_settings_entry shut{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
  nghttp2_submit_settings(client.session(), NGHTTP2_FLAG_NONE, &shut, 1);
  const int32_t stalled = client.submit(Http2Client::request("/"));
  bool others_go_on = true;
  EXPECT_TRUE(edge_.run_until([&] {
    others_go_on = others_go_on && client.finish(client.submit(Http2Client::request("/fixed")));
    return !others_go_on || client.result(stalled).closed.has_value();
  }));
  EXPECT_TRUE(others_go_on);
  EXPECT_EQ(client.result(stalled).closed, std::optional<uint32_t>(NGHTTP2_CANCEL));
}

TEST_F(Http2, AStreamWhoseWindowOpensByTheByteEndsToo) {
  Origin origin(Origin::says(std::string(60'000, 'x')));
  edge_.model.listeners[0].idle_timeout_ms = 100;
  edge_.model.listeners[0].minimum_rate_bytes = 1 << 20;
  start(origin);
  Http2Client client(edge_.endpoint());
  const nghttp2_settings_entry shut{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 0};
  nghttp2_submit_settings(client.session(), NGHTTP2_FLAG_NONE, &shut, 1);
  const int32_t slow = client.submit(Http2Client::request("/"));
  EXPECT_TRUE(edge_.run_until([&] {
    nghttp2_submit_window_update(client.session(), NGHTTP2_FLAG_NONE, slow, 1);
    client.send_all();
    return edge_.metric("tidegate_l7_failures_total{reason=\"client_too_slow\"}") == 1;
  }));
  EXPECT_FALSE(client.finish(slow) && client.result(slow).body.size() == 60'000);
}

TEST_F(Http2, AConnectionWhoseWindowOpensByTheByteEndsToo) {
  Origin origin(Origin::says(std::string(200'000, 'x')));
  edge_.model.listeners[0].idle_timeout_ms = 100;
  edge_.model.listeners[0].minimum_rate_bytes = 1 << 20;
  start(origin);
  Http2Client client(edge_.endpoint());
  const nghttp2_settings_entry wide{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20};
  nghttp2_submit_settings(client.session(), NGHTTP2_FLAG_NONE, &wide, 1);
  const int32_t slow = client.submit(Http2Client::request("/"));
  EXPECT_TRUE(edge_.run_until([&] {
    nghttp2_submit_window_update(client.session(), NGHTTP2_FLAG_NONE, 0, 1);
    client.send_all();
    return edge_.metric("tidegate_l7_failures_total{reason=\"client_too_slow\"}") == 1;
  }));
  EXPECT_FALSE(client.finish(slow) && client.result(slow).body.size() == 200'000);
}

TEST_F(Http2, DrainingLetsStreamsUnderWayFinish) {
  std::atomic<bool> release{false};
  Origin origin([&](const std::string&, Wire& wire) {
    while (!release) std::this_thread::yield();
    return wire.send(Origin::ok("late"));
  });
  start(origin);
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(Http2Client::request("/"));
  client.send_all();
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  bool drained = false;
  edge_.proxy().drain([&] { drained = true; });
  release = true;
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).body, "late");
  EXPECT_TRUE(edge_.run_until([&] { return drained; }));
}

// RFC 9113 §6.8. The client asks once more before it has read the first GOAWAY. That request is answered, too.
TEST_F(Http2, WhatAClientSendsBeforeItReadsTheFirstGoawayIsAnswered) {
  std::atomic<bool> release{false};
  Origin origin([&](const std::string&, Wire& wire) {
    while (!release) std::this_thread::yield();
    return wire.send(Origin::ok("late"));
  });
  Route fixed;
  fixed.name = "now";
  fixed.path = "/now";
  fixed.what = RouteAnswer{204, {}};
  edge_.model.routes.push_back(fixed);
  start(origin);
  Wire idle = Wire::connect(edge_.endpoint());
  idle.send(get("/now"));
  ASSERT_EQ(read_answer(idle).status, 204);
  Http2Client client(edge_.endpoint());  // the youngest connection is told of a drain first
  const int32_t under_way = client.submit(Http2Client::request("/"));
  client.send_all();
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 1; }));
  bool drained = false;
  edge_.proxy().drain([&] { drained = true; });
  ASSERT_TRUE(idle.at_end()) << "the drain has begun";
  const int32_t crossing = client.submit(Http2Client::request("/"));
  client.send_all();
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 2; }));
  release = true;
  ASSERT_TRUE(client.finish(under_way));
  ASSERT_TRUE(client.finish(crossing));
  EXPECT_EQ(client.result(crossing).body, "late");
  EXPECT_FALSE(client.run_until([] { return false; })) << "it ends";
  EXPECT_EQ(client.last_ids(), (std::vector<int32_t>{0x7fffffff, crossing}));
  EXPECT_TRUE(edge_.run_until([&] { return drained; }));
}

TEST_F(Http2, ResetsAreChargedToTheClientsAddress) {
  Origin origin(Origin::says("x"));
  L7Node& node = edge_.model.nodes[0].l7;
  node.connection_rate_per_client = 1;
  node.connection_burst_per_client = 100;
  start(origin);
  Http2Client client(edge_.endpoint());
  ASSERT_TRUE(client.finish(client.submit(Http2Client::request("/"))));
  for (int i = 0; i < 120; ++i) {  // fewer than a connection may reset
    const int32_t id = client.submit(Http2Client::request("/"));
    client.send_all();
    nghttp2_submit_rst_stream(client.session(), NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    client.send_all();
  }
  ASSERT_TRUE(client.finish(client.submit(Http2Client::request("/")))) << "the connection goes on";
  EXPECT_TRUE(Wire::connect(edge_.endpoint()).at_end());
  EXPECT_EQ(edge_.metric("tidegate_l7_client_connections_refused_total{reason=\"client_rate\"}"), 1u);
}

TEST_F(Http2, AnIdleConnectionMakesRoomWithGoawayAndOneWithAStreamDoesNot) {
  std::atomic<bool> release{false};
  Origin origin([&](const std::string& head, Wire& wire) {
    while (head.starts_with("GET /slow") && !release) std::this_thread::yield();
    return wire.send(Origin::ok("here"));
  });
  edge_.model.nodes[0].l7.max_connections = 2;
  edge_.model.nodes[0].l7.max_connections_per_client = 2;
  start(origin);
  Http2Client idle(edge_.endpoint()), busy(edge_.endpoint());
  ASSERT_TRUE(busy.finish(busy.submit(Http2Client::request("/first"))));
  ASSERT_TRUE(idle.finish(idle.submit(Http2Client::request("/"))));
  const int32_t slow = busy.submit(Http2Client::request("/slow"));
  busy.send_all();
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 3; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "here");
  EXPECT_FALSE(idle.run_until([] { return false; })) << "it was closed";
  EXPECT_EQ(idle.goaway(), std::optional<uint32_t>(NGHTTP2_NO_ERROR));
  EXPECT_FALSE(busy.goaway());
  release = true;
  ASSERT_TRUE(busy.finish(slow));
  EXPECT_EQ(busy.result(slow).body, "here");
}

}  // namespace tidegate::l7::test::http2_test
