// SPDX-License-Identifier: Apache-2.0
// HTTP/2 to backends: an origin by nghttp2, or a second proxy if TLS chooses the protocol.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <set>

#include "conf/model.h"
#include "conf/model/certificate.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "core/clock.h"
#include "l7/exchange/failure.h"
#include "l7/limits.h"
#include "tests/unit/l7/certificates.h"
#include "tests/unit/l7/http2_backend.h"
#include "tests/unit/l7/state_dir.h"

namespace tidegate::l7::test::http2_backend_test {

// --- the four pairings

struct Seen {
  std::vector<std::string> interim;
  std::string status, body, checksum;
  std::string request_body, request_sum;  // as the origin saw them; in HTTP/2 names are in lower case
  bool operator==(const Seen& other) const = default;
};

std::string chunked_body(Wire& wire, std::string* trailers) {
  std::string body;
  for (;;) {
    const size_t bytes = std::stoul(wire.read_until("\r\n"), nullptr, 16);
    if (bytes == 0) break;
    body += wire.read_exactly(bytes + 2).substr(0, bytes);
  }
  for (std::string line; (line = wire.read_until("\r\n")) != "\r\n" && !line.empty();) *trailers += line;
  return body;
}

Seen ask_by_http1(const Endpoint& endpoint, const std::string& body) {
  Seen seen;
  Wire wire = Wire::connect(endpoint);
  wire.send("POST /x HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
  wire.send(fmt::format("{:x}\r\n{}\r\n0\r\nX-Sum: of the request\r\n\r\n", body.size(), body));
  for (;;) {
    const std::string head = wire.read_until("\r\n\r\n");
    if (!head.starts_with("HTTP/1.1 1")) {
      seen.status = head.substr(9, 3);
      break;
    }
    const size_t link = head.find("ink: ") + 5;
    seen.interim.push_back(head.substr(9, 3) + " " + head.substr(link, head.find("\r\n", link) - link));
  }
  std::string trailers;
  seen.body = chunked_body(wire, &trailers);
  const size_t value = std::min(trailers.find(": ") + 2, trailers.size());
  seen.checksum = trailers.substr(value, trailers.find("\r\n", value) - value);
  return seen;
}

Seen ask_by_http2(const Endpoint& endpoint, const std::string& body) {
  Seen seen;
  Http2Client client(endpoint);
  Http2Fields fields = Http2Client::request("/x", "POST");
  fields.emplace_back("te", "trailers");
  const int32_t id = client.submit(fields, body, {{"x-sum", "of the request"}});
  EXPECT_TRUE(client.finish(id));
  StreamResult& result = client.result(id);
  for (auto& interim : result.interim) seen.interim.push_back(interim[":status"] + " " + interim["link"]);
  seen.status = result.fields[":status"];
  seen.body = result.body;
  seen.checksum = result.trailers["x-checksum"];
  return seen;
}

TEST_F(Http2Backend, TheFourPairingsCarryTheSameBytesTrailersAndInterimAnswers) {
  const std::string sent(300'000, 's'), answer(500'000, 'a');
  std::mutex mutex;
  std::string got_body, got_sum;
  Origin http1([&](const std::string& head, Wire& wire) {
    EXPECT_NE(head.find("\r\nte: trailers\r\n"), std::string::npos) << head;
    std::string trailers;
    const std::string body = chunked_body(wire, &trailers);
    {
      const std::lock_guard lock(mutex);
      got_body = body;
      std::transform(trailers.begin(), trailers.end(), trailers.begin(), [](char c) { return std::tolower(c); });
      got_sum = trailers;
    }
    return wire.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n") &&
           wire.send(fmt::format("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\n"
                                 "X-Checksum: of the answer\r\nContent-Type: evil/one\r\n\r\n",
                                 answer.size(), answer));
  });
  Http2Origin http2([&](const Request& request) {
    EXPECT_EQ(request.fields.at("te"), "trailers");
    {
      const std::lock_guard lock(mutex);
      got_body = request.body;
      got_sum = "x-sum: " + request.trailers.at("x-sum") + "\r\n";
    }
    Reply reply = says(answer);
    reply.interim = {{{":status", "103"}, {"link", "</a.css>"}}};
    reply.trailers = {{"x-checksum", "of the answer"}, {"content-type", "evil/one"}};
    return reply;
  });
  // The route matches /x alone: versions are asked for by other paths.
  const uint32_t one = edge_.add_pool("one", {http1.endpoint()}), two = edge_.add_pool("two", {http2.endpoint()});
  edge_.model.pools[two].protocol = BackendProtocol::h2;
  edge_.add_route("/x", one);
  edge_.start();
  const Seen expected{{"103 </a.css>"}, "200", answer, "of the answer", sent, "x-sum: of the request\r\n"};
  for (const bool to_http2 : {false, true}) {
    edge_.model.routes[0].what = RouteToPool{to_http2 ? two : one};
    publish_and_wait();
    for (const bool from_http2 : {false, true}) {
      SCOPED_TRACE(fmt::format("from {} to {}", from_http2 ? "h2" : "h1", to_http2 ? "h2" : "h1"));
      Seen seen = from_http2 ? ask_by_http2(edge_.endpoint(), sent) : ask_by_http1(edge_.endpoint(), sent);
      const std::lock_guard lock(mutex);
      seen.request_body = got_body;
      seen.request_sum = got_sum;
      EXPECT_TRUE(seen == expected) << seen.status << ' ' << seen.body.size() << ' ' << seen.checksum << ' '
                                    << seen.request_body.size() << ' ' << seen.request_sum << ' '
                                    << seen.interim.size();
    }
  }
  EXPECT_EQ(http1.requests(), 2u);
  EXPECT_EQ(http2.requests(), 2u);
}

// RFC 9110 §6.5.1: a client that has not said that it accepts trailers may not understand them.
TEST_F(Http2Backend, AnHttp1ClientThatDoesNotTakeTrailersGetsNone) {
  Http2Origin origin([](const Request& request) {
    EXPECT_EQ(request.fields.count("te"), 0u);
    Reply reply = says("x");
    reply.trailers = {{"x-checksum", "1"}};
    return reply;
  });
  start(origin.endpoint());
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/"));
  wire.read_until("\r\n\r\n");
  EXPECT_EQ(wire.read_until("0\r\n\r\n"), "1\r\nx\r\n0\r\n\r\n");
}

TEST_F(Http2Backend, AnAnswerWithoutABodyEndsForHttp1ClientsToo) {
  Http2Origin origin([](const Request& request) {
    Reply reply;
    if (request.fields.at(":path") == "/204") reply.fields = {{":status", "204"}};
    if (request.fields.at(":path") == "/304") reply.fields = {{":status", "304"}, {"content-length", "5"}};
    return reply;
  });
  start(origin.endpoint());
  Wire wire = Wire::connect(edge_.endpoint());
  for (const char* path : {"/200", "/204", "/304", "/200"}) {
    wire.send(get(path));
    const Answer answer = read_answer(wire);
    EXPECT_EQ(std::to_string(answer.status), path + 1);
    EXPECT_TRUE(answer.complete);
  }
  wire.send("HEAD /200 HTTP/1.1\r\nHost: a.test\r\n\r\n");
  EXPECT_EQ(read_answer(wire, true).field("content-length"), "") << "nobody knows it";
  wire.send(get("/200"));
  EXPECT_EQ(read_answer(wire).field("content-length"), "0");
}

// --- many requests, one connection

TEST_F(Http2Backend, ManyRequestsShareOneConnection) {
  Http2Origin origin([](const Request& request) { return says(request.fields.at(":path")); });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  std::vector<int32_t> ids;
  for (int i = 0; i < 90; ++i) ids.push_back(client.submit(Http2Client::request("/" + std::to_string(i))));
  for (size_t i = 0; i < ids.size(); ++i) {
    ASSERT_TRUE(client.finish(ids[i]));
    EXPECT_EQ(client.result(ids[i]).body, "/" + std::to_string(i));
  }
  EXPECT_EQ(ask(edge_.endpoint(), get("/last?q=1")).body, "/last?q=1");
  EXPECT_EQ(origin.connections(), 1u);
  EXPECT_EQ(connections(), 1u);
}

// Like each gRPC call with one message.
TEST_F(Http2Backend, AShortBodyThatCameWholeEndsWithItsOnlyFrame) {
  Http2Origin origin([](const Request& request) { return says(std::to_string(request.data_frames) + request.body); });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nwhole").body, "1whole");
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(Http2Client::request("/", "POST"), "whole");
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).body, "1whole");
}

// The backend accepts two at a time, and only one connection is allowed: the others wait in the queue.
TEST_F(Http2Backend, ABackendGetsNoMoreStreamsThanItTakes) {
  std::atomic<int> now{0}, most{0};
  Http2Origin origin(
      [&](const Request& request) {
        most = std::max<int>(most, ++now);
        --now;
        return says(request.fields.at(":path"));
      },
      2);
  start(origin.endpoint(), [](Pool& pool) { pool.max_connections = 1; });
  EXPECT_EQ(ask(edge_.endpoint(), get("/first")).status, 200) << "its SETTINGS are known";
  Http2Client client(edge_.endpoint());
  std::vector<int32_t> ids;
  for (int i = 0; i < 40; ++i) ids.push_back(client.submit(Http2Client::request("/" + std::to_string(i))));
  for (const int32_t id : ids) {
    ASSERT_TRUE(client.finish(id));
    EXPECT_EQ(client.result(id).fields.at(":status"), "200");
  }
  EXPECT_EQ(origin.connections(), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"stream_refused\"}"), 0u);
}

TEST_F(Http2Backend, LargeBodiesPassBothWaysThroughItsWindows) {
  const std::string body(2'000'000, 'b');
  Http2Origin origin([](const Request& request) { return says(request.body); });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(Http2Client::request("/", "POST"), body);
  ASSERT_TRUE(client.finish(id));
  EXPECT_TRUE(client.result(id).body == body) << client.result(id).body.size();
}

// For a far backend the window is the limit: the bytes of one round trip.
TEST_F(Http2Backend, TheWindowOfADownloadGrowsWhileItsClientReads) {
  const std::string body(16 << 20, 'b');
  Http2Origin origin([&](const Request&) { return says(body); });
  start(origin.endpoint());
  for (int i = 0; i < 2; ++i) {  // the growth for the first one was given back
    EXPECT_TRUE(ask(edge_.endpoint(), get("/")).body == body);
  }
  EXPECT_GT(origin.widest_window(), kBackendHttp2WindowBytes);
  EXPECT_LE(origin.widest_window(), kBackendHttp2WindowMostBytes);
  EXPECT_EQ(connections(), 1u);
}

// The stream of the slow client holds one window of its answer. The connection's window has room for the windows of all
// streams.
TEST_F(Http2Backend, AClientThatDoesNotReadStopsItsOwnStreamAlone) {
  const std::string large(4'000'000, 'l');
  Http2Origin origin(
      [&](const Request& request) { return says(request.fields.at(":path") == "/large" ? large : "s"); });
  start(origin.endpoint());
  std::vector<Wire> idle;
  for (int i = 0; i < 20; ++i) {
    idle.push_back(Wire::connect(edge_.endpoint(), 4096));
    idle.back().send(get("/large"));
  }
  ASSERT_TRUE(edge_.run_until([&] { return origin.requests() == 20; }));
  for (int i = 0; i < 20; ++i) EXPECT_EQ(ask(edge_.endpoint(), get("/small")).body, "s");
  for (Wire& wire : idle) EXPECT_TRUE(read_answer(wire).body == large);
  EXPECT_EQ(origin.connections(), 1u);
}

TEST_F(Http2Backend, AClientThatLeavesResetsItsStreamAndKeepsTheConnection) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says("x");
    reply.silent = request.fields.at(":path") == "/silent";
    return reply;
  });
  start(origin.endpoint());
  {
    Wire wire = Wire::connect(edge_.endpoint());
    wire.send(get("/silent"));
    ASSERT_TRUE(edge_.run_until([&] { return origin.open_streams() == 1; }));
  }
  EXPECT_TRUE(edge_.run_until([&] { return origin.resets() == 1; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "x");
  EXPECT_EQ(origin.connections(), 1u);
}

// The head of a request may wait for the end of the round. If the client is gone by then, no byte of the head is sent.
TEST_F(Http2Backend, AClientThatLeavesAtOnceLeavesNothingBehind) {
  std::atomic<int> odd{0};
  Http2Origin origin([&](const Request& request) {
    const std::string& path = request.fields.at(":path");
    if (request.fields.at("x-mark") != path.substr(0, 5) || path.size() != 200) ++odd;
    return says(path.substr(0, 5));
  });
  start(origin.endpoint());
  const auto request = [](std::string mark) {
    Http2Fields fields = Http2Client::request(mark + std::string(200 - mark.size(), 'p'));
    fields.emplace_back("x-mark", mark);
    return fields;
  };
  for (int i = 0; i < 30; ++i) {
    {
      Http2Client gone(edge_.endpoint());
      gone.submit(request("/gone"));
      gone.send_all();
    }
    Http2Client client(edge_.endpoint());
    const int32_t id = client.submit(request("/here"));
    ASSERT_TRUE(client.finish(id));
    EXPECT_EQ(client.result(id).body, "/here");
  }
  EXPECT_EQ(odd, 0);
}

// Small heads are lent to nghttp2, large ones are copied; and the name of the request's id is in the table after the
// first one.
TEST_F(Http2Backend, HeadsOfAnySizeAndIdsOfManyRequestsPassWhole) {
  std::mutex mutex;
  std::set<std::string> ids;
  Http2Origin origin([&](const Request& request) {
    const std::lock_guard lock(mutex);
    ids.insert(request.fields.at("x-request-id"));
    Reply reply = says("x");
    const size_t bytes = std::stoul(request.fields.at(":path").substr(1));
    for (size_t i = 0; i < bytes; i += 100) reply.fields.emplace_back("x-f" + std::to_string(i), std::string(90, 'v'));
    reply.fields.emplace_back("x-empty", "");
    return reply;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  for (size_t i = 0; i < 200; ++i) {
    const size_t bytes = i * 37 % 1'500;
    const int32_t id = client.submit(Http2Client::request("/" + std::to_string(bytes)));
    ASSERT_TRUE(client.finish(id));
    auto& fields = client.result(id).fields;
    for (size_t at = 0; at < bytes; at += 100) EXPECT_EQ(fields["x-f" + std::to_string(at)], std::string(90, 'v'));
    EXPECT_EQ(fields.count("x-empty"), 1u);
    const std::lock_guard lock(mutex);
    EXPECT_EQ(ids.count(fields["x-request-id"]), 1u);
    EXPECT_EQ(ids.size(), i + 1);
  }
}

TEST_F(Http2Backend, ItsAnswersAreStored) {
  const StateDir state;
  const std::string body(300'000, 'b');
  Http2Origin origin([&](const Request&) {
    Reply reply = says(body);
    reply.fields.emplace_back("cache-control", "max-age=600");
    reply.trailers = {{"x-checksum", "is not stored"}};
    return reply;
  });
  edge_.state_dir = state.path;
  edge_.model.nodes[0].cache.enabled = true;
  const uint32_t pool = edge_.add_pool("p", {origin.endpoint()});
  edge_.model.pools[pool].protocol = BackendProtocol::h2;
  edge_.add_route("/*", pool).cache.enabled = true;
  edge_.start();
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(ask(edge_.endpoint(), get("/")).body == body);
  EXPECT_EQ(origin.requests(), 1u);
}

// --- GOAWAY, refusals, resets

// RFC 9113 §6.8: streams above the last one were not processed, so any method is sent again.
TEST_F(Http2Backend, WhatAGoawayLeavesOutIsAskedAgainOnANewConnection) {
  std::atomic<bool> gone{false};
  Http2Origin origin([&](const Request& request) {
    Reply reply = says("from " + std::to_string(request.connection));
    if (request.connection == 1 && request.fields.at(":path") == "/late") {
      reply.silent = true;
      reply.goaway_at = 1;
      gone = true;
    }
    return reply;
  });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/first")).body, "from 1");
  EXPECT_EQ(ask(edge_.endpoint(), "POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").body, "from 2");
  EXPECT_TRUE(gone);
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 1u);
  EXPECT_EQ(edge_.metric("tidegate_l7_backend_goaways_total"), 1u);
  EXPECT_EQ(charged(), 0u);
}

// A unary gRPC call has a body, which is kept while it is short.
TEST_F(Http2Backend, ARequestWhoseShortBodyWasSentIsSentAgainWhole) {
  std::atomic<int> asked{0};
  Http2Origin origin([&](const Request& request) {
    Reply reply = says(request.body);
    reply.silent = ++asked % 2 == 1;
    if (reply.silent) reply.reset = NGHTTP2_REFUSED_STREAM;
    return reply;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const std::string at_bound(kKeptBodyBytes, 'b');
  const int32_t kept = client.submit(Http2Client::request("/", "POST"), at_bound);
  ASSERT_TRUE(client.finish(kept));
  EXPECT_TRUE(client.result(kept).body == at_bound);
  EXPECT_EQ(asked, 2);
  const int32_t longer = client.submit(Http2Client::request("/", "POST"), at_bound + "b");
  ASSERT_TRUE(client.finish(longer));
  EXPECT_EQ(client.result(longer).fields.at(":status"), "502");
  EXPECT_EQ(asked, 3);
}

TEST_F(Http2Backend, WhatAGoawayIncludesIsAnsweredAndNothingNewIsSentThere) {
  Http2Origin origin([&](const Request& request) {
    Reply reply = says("from " + std::to_string(request.connection));
    if (request.connection == 1) reply.goaway_at = request.stream;
    return reply;
  });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/first")).body, "from 1");
  EXPECT_EQ(ask(edge_.endpoint(), get("/second")).body, "from 2");
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 0u);
}

TEST_F(Http2Backend, ARefusedStreamIsAskedAgainWithAnyMethodAndNobodyIsCharged) {
  std::atomic<int> asked{0};
  Http2Origin origin([&](const Request&) {
    Reply reply = says("at last");
    if (++asked < 3) {
      reply.silent = true;
      reply.reset = NGHTTP2_REFUSED_STREAM;
    }
    return reply;
  });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").body, "at last");
  EXPECT_EQ(asked, 3);
  EXPECT_EQ(charged(), 0u);
}

TEST_F(Http2Backend, StreamRefused) {
  Http2Origin origin([](const Request&) {
    Reply reply;
    reply.silent = true;
    reply.reset = NGHTTP2_REFUSED_STREAM;
    return reply;
  });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::stream_refused).status);
  EXPECT_EQ(failures(Failure::stream_refused), 1u);
  EXPECT_EQ(origin.requests(), 3u) << "retry_attempts bounds it";
  EXPECT_EQ(charged(), 0u);
}

TEST_F(Http2Backend, StreamReset) {
  Http2Origin origin([](const Request&) {
    Reply reply;
    reply.silent = true;
    reply.reset = NGHTTP2_INTERNAL_ERROR;
    return reply;
  });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::stream_reset).status);
  EXPECT_EQ(failures(Failure::stream_reset), 1u);
  EXPECT_EQ(charged(), 1u);
  EXPECT_EQ(origin.requests(), 1u) << "there is no other backend";
}

TEST_F(Http2Backend, AnAnswerThatIsResetIsBrokenOff) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says("half");
    reply.reset = NGHTTP2_INTERNAL_ERROR;
    if (request.fields.at(":path") == "/whole") reply.reset.reset();
    return reply;
  });
  start(origin.endpoint());
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/half"));
  const std::string all = wire.read_to_end();
  EXPECT_NE(all.find("4\r\nhalf\r\n"), std::string::npos);
  EXPECT_FALSE(all.ends_with("0\r\n\r\n"));
  EXPECT_TRUE(edge_.run_until([&] { return failures(Failure::backend_truncated) == 1; }));
  EXPECT_EQ(ask(edge_.endpoint(), get("/whole")).body, "half");
  EXPECT_EQ(origin.connections(), 1u);
}

TEST_F(Http2Backend, ABackendThatClosesFailsWhatWaitsAndTheNextRequestConnectsAgain) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says("from " + std::to_string(request.connection));
    reply.silent = reply.close = request.fields.at(":path") == "/close";
    return reply;
  });
  start(origin.endpoint());
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "from 1");
  EXPECT_EQ(ask(edge_.endpoint(), "POST /close HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").status, 502);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "from 2");
}

// Its TCP connection lives, but its requests are not answered: other requests must not use it.
TEST_F(Http2Backend, AConnectionOnWhichNothingComesIsLeft) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says("from " + std::to_string(request.connection));
    reply.silent = request.fields.at(":path") == "/silent";
    return reply;
  });
  start(origin.endpoint(), [](Pool& pool) { pool.first_byte_timeout_ms = kBackendHttp2SilentMs + 100; });
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "from 1");
  EXPECT_EQ(ask(edge_.endpoint(), get("/silent")).status, info(Failure::first_byte_timeout).status);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "from 2");
}

TEST_F(Http2Backend, MalformedAnswersAreRefused) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says("12345");
    const std::string path = request.fields.at(":path");
    if (path == "/length") reply.fields.emplace_back("content-length", "4");
    if (path == "/large") {
      for (int i = 0; i < 40; ++i) reply.fields.emplace_back("x" + std::to_string(i), std::string(2'000, 'x'));
    }
    if (path == "/many") {
      for (int i = 0; i < 550; ++i) reply.fields.emplace_back("x", "y");
    }
    if (path == "/interim") reply.interim.assign(100, {{":status", "103"}});
    if (path == "/switch") reply.interim.assign(1, {{":status", "101"}});
    return reply;
  });
  start(origin.endpoint(), [](Pool& pool) { pool.eject_after = 0; });
  EXPECT_EQ(ask(edge_.endpoint(), get("/many")).status, 502);
  EXPECT_EQ(failures(Failure::response_too_large), 1u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/large")).status, 502);
  EXPECT_EQ(failures(Failure::response_too_large), 2u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/interim")).status, 502);
  EXPECT_EQ(failures(Failure::too_many_interim), 1u);
  EXPECT_EQ(ask(edge_.endpoint(), get("/switch")).status, 502);
  EXPECT_EQ(failures(Failure::bad_response), 1u);
  Wire wire = Wire::connect(edge_.endpoint());
  wire.send(get("/length"));
  EXPECT_FALSE(read_answer(wire).complete);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "12345") << "the connection still serves";
}

// --- the protocol by ALPN

class Http2ByTls : public Http2Backend {
 protected:
  void start_tls(bool backend_has_http2, BackendProtocol protocol) {
    behind_.model.certificates = {certificate_for("a.test")};
    Listener& listener = behind_.model.listeners[0];
    listener.tls.enabled = true;
    listener.tls.certificates = {0};
    listener.http2 = backend_has_http2;
    behind_.add_route("/*", behind_.add_pool("origin", {origin_.endpoint()}));
    behind_.start();
    start(behind_.endpoint(), [&](Pool& pool) {
      pool.tls = true;
      pool.tls_verify = false;
      pool.tls_server_name = "a.test";
      pool.protocol = protocol;
    });
  }
  void ask_many() {
    Http2Client client(edge_.endpoint());
    std::vector<int32_t> ids;
    for (int i = 0; i < 10; ++i) ids.push_back(client.submit(Http2Client::request("/")));
    for (const int32_t id : ids) {
      ASSERT_TRUE(client.finish(id));
      EXPECT_EQ(client.result(id).body, "x");
    }
  }
  Origin origin_{Origin::says("x")};
  Edge behind_;
};

TEST_F(Http2ByTls, AutoTakesHttp2WhereTheBackendHasIt) {
  start_tls(true, BackendProtocol::automatic);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "x");
  EXPECT_EQ(connections(), 1u);
  ask_many();
  EXPECT_EQ(behind_.metric("tidegate_l7_requests_total{protocol=\"h2\",status=\"2xx\"}"), 11u);
  EXPECT_EQ(behind_.metric("tidegate_l7_client_connections_total"), 1u);
}

TEST_F(Http2ByTls, AutoTakesHttp1WhereTheBackendHasNothingElse) {
  start_tls(false, BackendProtocol::automatic);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "x");
  ask_many();
  ask_many();
  EXPECT_EQ(connections(), 0u);
  EXPECT_EQ(behind_.metric("tidegate_l7_requests_total{protocol=\"http/1.1\",status=\"2xx\"}"), 21u);
  EXPECT_LE(behind_.metric("tidegate_l7_client_connections_total"), 11u) << "they are kept";
  EXPECT_EQ(edge_.metric("tidegate_l7_retries_total"), 0u);
}

// Requests that share a connection while it is made choose again when it becomes HTTP/1.
TEST_F(Http2ByTls, ABackendThatLosesHttp2IsStillServed) {
  start_tls(true, BackendProtocol::automatic);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).body, "x");
  ask_many();
  EXPECT_EQ(connections(), 1u);
  behind_.model.listeners[0].http2 = false;
  publish_and_wait(behind_);
  edge_.model.pools[0].tls_server_name = "b.test";  // so that a new connection is made
  publish_and_wait();
  ask_many();
  ask_many();
  EXPECT_EQ(edge_.metric("tidegate_l7_failures_total{reason=\"tls_failed\"}"), 0u);
}

TEST_F(Http2ByTls, ABackendThatMustSpeakHttp2AndDoesNotIsRefusedByName) {
  start_tls(false, BackendProtocol::h2);
  EXPECT_EQ(ask(edge_.endpoint(), get("/")).status, info(Failure::tls_failed).status);
  EXPECT_EQ(failures(Failure::tls_failed), 1u);
}

}  // namespace tidegate::l7::test::http2_backend_test
