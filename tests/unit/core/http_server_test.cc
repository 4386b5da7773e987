// SPDX-License-Identifier: Apache-2.0
#include "core/http_server.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "core/http_client.h"
#include "core/limits.h"
#include "core/metrics.h"
#include "http_fixture.h"
#include "kept_alive.h"

namespace tidegate::http_server_test {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const Endpoint kAnyPort = *Endpoint::parse("127.0.0.1:0");

class HttpServerTest : public ::testing::Test {
 protected:
  // Echoes method, path and body unless a test sets handler_.
  void serve(const HttpServerLimits& limits = {}) {
    server_ = std::make_unique<HttpServer>(
        loop_,
        [this](HttpExchangePtr exchange) {
          if (handler_) return handler_(std::move(exchange));
          const HttpRequest& request = exchange->request();
          exchange->respond(HttpResponse::text(200, request.method + " " + request.path + " [" + request.body + "]"));
        },
        limits);
    const Result<void> listening = server_->listen_tcp(kAnyPort);
    ASSERT_TRUE(listening) << listening.error().message;
  }
  RawClient client() { return RawClient(loop_, connect_tcp(server_->tcp_endpoint())); }
  std::string answer_to(std::string_view bytes) {
    RawClient raw = client();
    raw.send(bytes);
    raw.finish_sending();
    return raw.read_all();
  }

  EventLoop loop_;
  HttpHandler handler_;
  std::unique_ptr<HttpServer> server_;
};

// A watcher sends nothing and may receive nothing for hours. Only the kernel notices that its host is gone.
TEST_F(HttpServerTest, TheKernelWatchesForWatchersAndServersThatVanish) {
  HttpExchangePtr watched;
  handler_ = [&](HttpExchangePtr exchange) {
    exchange->begin_stream(200, {});
    exchange->write("first");
    watched = std::move(exchange);
  };
  serve();
  HttpTarget target;
  target.endpoint = server_->tcp_endpoint();
  HttpClientRequest request;
  request.timeout_ms = 0;
  std::string received;
  const auto watcher = http_stream(
      loop_, target, request, [&](std::string_view bytes) { received += bytes; }, [](Result<HttpResponse>) {});
  ASSERT_TRUE(turn_until(loop_, [&] { return received == "first"; }));
  const uint16_t port = target.endpoint.port;
  EXPECT_TRUE(turn_until(loop_, [&] { return kept_alive(port, true) == 1 && kept_alive(port, false) == 1; }));
}

TEST_F(HttpServerTest, ServesOthersWhileOneClientPipelines) {
  serve();
  std::vector<std::string> order;
  handler_ = [&](const HttpExchangePtr& exchange) {
    order.push_back(exchange->request().path);
    exchange->respond({204, {}, {}});
  };
  RawClient busy = client(), other = client();
  busy.send("GET /busy HTTP/1.1\r\nHost: h\r\n\r\n");
  busy.read_until("\r\n\r\n");
  std::string requests;
  for (int i = 0; i < 400; ++i) requests += "GET /busy HTTP/1.1\r\nHost: h\r\n\r\n";
  busy.send(requests);
  other.send("GET /other HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_TRUE(turn_until(loop_, [&] { return order.size() == 402; }));
  EXPECT_LE(std::find(order.begin(), order.end(), "/other") - order.begin(), 1 + 2 * kHttpTurnRequests);
  busy.read_until("\r\n\r\n", 401);
}

TEST_F(HttpServerTest, HandsOverTheRequestAndSendsTheAnswer) {
  serve();
  HttpRequest seen;
  handler_ = [&](const HttpExchangePtr& exchange) {
    seen = exchange->request();
    exchange->respond({201, {{"X-Answer", "yes"}}, "made"});
  };
  const std::string answer =
      answer_to("POST /a?b=c HTTP/1.1\r\nHost: h\r\nX-UPPER: v\r\nContent-Length: 4\r\n\r\nbody");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 201 Created\r\nDate: "));
  EXPECT_THAT(answer, HasSubstr("X-Answer: yes\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 4\r\n\r\nmade"));
  EXPECT_EQ(seen.method, "POST");
  EXPECT_EQ(seen.path, "/a");
  EXPECT_EQ(seen.parameter("b"), "c");
  EXPECT_EQ(seen.authority, "h");
  EXPECT_EQ(seen.header("x-upper"), "v");
  EXPECT_EQ(seen.body, "body");
  ASSERT_TRUE(seen.peer);
  EXPECT_EQ(seen.peer->address.to_string(), "127.0.0.1");
}

TEST_F(HttpServerTest, AnswersPipelinedRequestsInOrderOneAtATime) {
  serve();
  std::vector<HttpExchangePtr> held;
  handler_ = [&](HttpExchangePtr exchange) {
    if (exchange->request().path == "/slow") return held.push_back(std::move(exchange));
    exchange->respond(HttpResponse::text(200, exchange->request().path));
  };
  RawClient raw = client();
  raw.send(
      "GET /slow HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\nHost: h\r\n\r\nGET /slow HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_TRUE(turn_until(loop_, [&] { return held.size() == 1; }));
  held[0]->respond(HttpResponse::text(200, "first"));
  EXPECT_EQ(held.size(), 1u);  // no handler is entered from inside an answer
  ASSERT_TRUE(turn_until(loop_, [&] { return held.size() == 2; }));
  held[1]->respond(HttpResponse::text(200, "third"));
  const std::string answer = raw.read_until("third");
  EXPECT_LT(answer.find("first"), answer.find("/b"));
  EXPECT_LT(answer.find("/b"), answer.find("third"));
}

TEST_F(HttpServerTest, TenThousandPipelinedRequestsReadLateAreAllAnsweredInOrderAndWaitMeanwhile) {
  constexpr size_t kRequests = 10'000;
  size_t asked = 0;
  handler_ = [&](const HttpExchangePtr& exchange) {
    ++asked;
    exchange->respond(HttpResponse::text(200, exchange->request().path + std::string(1'000, '.')));
  };
  serve();
  UniqueFd fd = connect_tcp(server_->tcp_endpoint());
  std::string requests, received;
  for (size_t i = 0; i < kRequests; ++i) requests += "GET /n/" + std::to_string(i) + " HTTP/1.1\r\nHost: h\r\n\r\n";
  size_t sent = 0;
  const auto send_more = [&] {
    const ssize_t some = ::send(fd.get(), requests.data() + sent, requests.size() - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (some > 0) sent += static_cast<size_t>(some);
    return some > 0;
  };
  // The client reads nothing until the server has stopped: then no turn of its loop starts another request.
  for (size_t before = 1; before != asked || send_more();) {
    before = asked;
    loop_.run_once(kNsPerMs);
  }
  EXPECT_LT(asked, kRequests) << "what nobody reads is not made";
  size_t answered = 0, from = 0;
  EXPECT_TRUE(turn_until(loop_, [&] {
    if (sent < requests.size()) send_more();
    char buffer[64 * 1024];
    const ssize_t got = ::recv(fd.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got > 0) received.append(buffer, static_cast<size_t>(got));
    for (size_t at; (at = received.find("/n/" + std::to_string(answered) + ".", from)) != std::string::npos;
         ++answered) {
      received.erase(0, at);
    }
    return answered == kRequests || got == 0;
  }));
  EXPECT_EQ(answered, kRequests);
}

TEST_F(HttpServerTest, ReadsARequestThatComesByteByByte) {
  serve();
  RawClient raw = client();
  for (const char c : std::string("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                  "chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\nT: v\r\n\r\n")) {
    raw.send({&c, 1});
    loop_.run_once(0);
  }
  EXPECT_THAT(raw.read_until("]"), HasSubstr("POST /p [abcde]"));
}

TEST_F(HttpServerTest, AnswersAFaultWithItsReasonCountsItAndCloses) {
  serve();
  Counter& counter =
      metrics().counter("tidegate_http_server_refused_requests_total", "", {{"reason", "space_before_colon"}});
  const uint64_t before = counter.value();
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost : h\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n");
  const std::string answer = raw.read_all();
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 Bad Request\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Type: application/problem+json\r\n"));
  EXPECT_THAT(answer, HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer, HasSubstr("\"detail\":\"white space stands between a field name and its colon\""));
  EXPECT_EQ(raw.count("HTTP/1.1"), 1u);
  EXPECT_EQ(counter.value(), before + 1);
}

TEST_F(HttpServerTest, BoundsBodiesOfBothFramings) {
  HttpServerLimits limits;
  limits.body_bytes = 4;
  serve(limits);
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcd"), HasSubstr("[abcd]"));
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(answer_to("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n"),
              StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, ARefusedClientStillReadsWhyWhileItSends) {
  HttpServerLimits limits;
  limits.body_bytes = 4;
  serve(limits);
  RawClient raw = client();
  raw.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n");
  raw.send(std::string(2'000'000, 'x'));
  EXPECT_THAT(raw.read_all(), HasSubstr("at most 4 bytes"));
}

TEST_F(HttpServerTest, InvitesTheBodyOfAnExpectingClient) {
  serve();
  RawClient raw = client();
  raw.send("POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
  EXPECT_EQ(raw.read_until("\r\n\r\n"), "HTTP/1.1 100 Continue\r\n\r\n");
  raw.send("ab");
  EXPECT_THAT(raw.read_until("[ab]"), HasSubstr("HTTP/1.1 200 OK"));
}

TEST_F(HttpServerTest, LeavesOutBodiesThatMayNotBe) {
  serve();
  EXPECT_THAT(answer_to("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"), HasSubstr("Content-Length: 10\r\n\r\n"));
  EXPECT_THAT(answer_to("HEAD /x HTTP/1.1\r\nHost: h\r\n\r\n"), Not(HasSubstr("[")));
  handler_ = [](const HttpExchangePtr& exchange) { exchange->respond({204, {}, "never sent"}); };
  const std::string answer = answer_to("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(answer, Not(HasSubstr("Content-Length")));
  EXPECT_THAT(answer, Not(HasSubstr("never")));
}

TEST_F(HttpServerTest, SpeaksHttp10AsItsClientDoes) {
  serve();
  EXPECT_THAT(answer_to("GET / HTTP/1.0\r\n\r\n"), HasSubstr("Connection: close\r\n"));
  EXPECT_THAT(answer_to("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), HasSubstr("Connection: keep-alive\r\n"));
  handler_ = [](const HttpExchangePtr& exchange) {
    exchange->begin_stream(200, {});
    exchange->write("ab");
    exchange->write("cd");
    exchange->end_stream();
  };
  RawClient raw = client();
  raw.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  const std::string answer = raw.read_all();  // it ends with the connection
  EXPECT_THAT(answer, Not(HasSubstr("chunked")));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nabcd"));
}

TEST_F(HttpServerTest, StreamsInChunksAndKeepsTheConnection) {
  serve();
  HttpExchangePtr held;
  handler_ = [&](HttpExchangePtr exchange) {
    exchange->begin_stream(200, {{"Content-Type", "application/x-ndjson"}});
    EXPECT_TRUE(exchange->write("one\n"));
    held = std::move(exchange);
  };
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("4\r\none\n\r\n");
  EXPECT_TRUE(held->write("second\n"));
  held->end_stream();
  EXPECT_FALSE(held->write("late"));
  EXPECT_THAT(raw.read_until("0\r\n\r\n"), HasSubstr("7\r\nsecond\n\r\n0\r\n\r\n"));
  handler_ = nullptr;
  raw.send("GET /next HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("GET /next");
}

TEST_F(HttpServerTest, GivesUpOnRequestsThatDoNotArrive) {
  HttpServerLimits limits;
  limits.request_ms = 20;
  serve(limits);
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost:");
  EXPECT_THAT(raw.read_all(), StartsWith("HTTP/1.1 408 "));
}

TEST_F(HttpServerTest, ClosesConnectionsThatIdle) {
  HttpServerLimits limits;
  limits.idle_ms = 20;
  serve(limits);
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(raw.count("408"), 0u);
  EXPECT_THAT(raw.read_all(), HasSubstr("200 OK"));
}

TEST_F(HttpServerTest, DropsAClientThatStopsReadingItsAnswer) {
  HttpServerLimits limits;
  limits.idle_ms = 20;
  limits.connections = 1;
  serve(limits);
  handler_ = [&](const HttpExchangePtr& exchange) {
    const bool small = exchange->request().path == "/small";
    exchange->respond(HttpResponse::text(200, std::string(small ? 1 : 32 << 20, 'x')));
  };
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  // Its answer is in the server's buffer until the server closes it. Only then is there room for another connection.
  const auto served = [&] { return answer_to("GET /small HTTP/1.1\r\nHost: h\r\n\r\n").starts_with("HTTP/1.1 200"); };
  EXPECT_TRUE(turn_until(loop_, served));
  EXPECT_LT(raw.read_all().size(), size_t{32} << 20);
}

TEST_F(HttpServerTest, SendsALargeAnswerWholeToASlowReader) {
  serve();
  const std::string body(8 << 20, 'x');
  handler_ = [&](const HttpExchangePtr& exchange) { exchange->respond(HttpResponse::text(200, body)); };
  const std::string answer = answer_to("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(answer.size() - answer.find("\r\n\r\n") - 4, body.size());
}

TEST_F(HttpServerTest, AHandlerTakesALargeBodyAndManyStreamsShareOne) {
  serve();
  const auto line = std::make_shared<const std::string>(1 << 20, 'y');
  std::string taken;
  handler_ = [&](const HttpExchangePtr& exchange) {
    if (exchange->request().method == "GET") {
      exchange->begin_stream(200, {});
      EXPECT_TRUE(exchange->write("before ") && exchange->write_shared(line) && exchange->write(" after"));
      return exchange->end_stream();
    }
    taken = exchange->take_body();
    EXPECT_TRUE(exchange->request().body.empty());
    exchange->respond(HttpResponse::text(200, "taken"));
  };
  const std::string body(3 << 20, 'x');
  const std::string put = fmt::format("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.size());
  EXPECT_THAT(answer_to(put + body), HasSubstr("taken"));
  EXPECT_TRUE(taken == body);
  for (int stream = 0; stream < 2; ++stream) {
    const std::string answer = answer_to("GET / HTTP/1.0\r\n\r\n");
    EXPECT_TRUE(answer.ends_with("before " + *line + " after"));
  }
  EXPECT_EQ(line.use_count(), 1);
}

TEST_F(HttpServerTest, AnswersForAHandlerThatDropsItsExchange) {
  serve();
  handler_ = [](const HttpExchangePtr&) {};
  EXPECT_THAT(answer_to("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), StartsWith("HTTP/1.1 500 "));
  handler_ = [](const HttpExchangePtr& exchange) { exchange->begin_stream(200, {}); };
  const std::string cut = answer_to("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(cut, Not(HasSubstr("0\r\n\r\n")));  // the client sees a body without its end
}

TEST_F(HttpServerTest, SurvivesAHandlerThatThrows) {
  serve();
  handler_ = [](const HttpExchangePtr& exchange) {
    if (exchange->request().path == "/throws") throw std::runtime_error("thrown on purpose");
    exchange->respond(HttpResponse::text(200, "fine"));
  };
  RawClient raw = client();
  raw.send("GET /throws HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_THAT(raw.read_until("fine"), StartsWith("HTTP/1.1 500 "));
}

TEST_F(HttpServerTest, NeverSendsAHeaderThatBreaksTheHeadOpen) {
  serve();
  handler_ = [](const HttpExchangePtr& exchange) {
    const std::vector<std::pair<std::string, std::string>> evil{{"Location", "/\r\nSet-Cookie: x"}};
    if (exchange->request().path == "/stream") return exchange->begin_stream(200, evil);
    exchange->respond({302, evil, {}});
  };
  for (const char* path : {"/", "/stream"}) {
    const std::string answer = answer_to("GET " + std::string(path) + " HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 "));
    EXPECT_THAT(answer, Not(HasSubstr("Set-Cookie")));
  }
}

TEST_F(HttpServerTest, AHalfClosedClientStillGetsADeferredAnswer) {
  serve();
  HttpExchangePtr held;
  handler_ = [&](HttpExchangePtr exchange) { held = std::move(exchange); };
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.finish_sending();
  ASSERT_TRUE(turn_until(loop_, [&] { return held != nullptr; }));
  loop_.run_once(0);
  held->respond(HttpResponse::text(200, "late"));
  EXPECT_THAT(raw.read_all(), HasSubstr("late"));
}

TEST_F(HttpServerTest, TellsAStreamThatItsClientIsGone) {
  serve();
  HttpExchangePtr held;
  int closed = 0;
  handler_ = [&](HttpExchangePtr exchange) {
    exchange->begin_stream(200, {});
    exchange->on_close([&] { ++closed; });
    held = std::move(exchange);
  };
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("\r\n\r\n");
  raw.close();
  EXPECT_TRUE(turn_until(loop_, [&] { return closed == 1; }));
  EXPECT_FALSE(held->write("x"));
  loop_.run_once(0);
  EXPECT_EQ(closed, 1);
}

TEST_F(HttpServerTest, CutsAStreamWhoseClientLetsTooMuchPileUp) {
  HttpServerLimits limits;
  limits.max_stream_backlog = 1 << 20;
  serve(limits);
  HttpExchangePtr held;
  bool closed = false;
  handler_ = [&](HttpExchangePtr exchange) {
    exchange->begin_stream(200, {});
    exchange->on_close([&] { closed = true; });
    held = std::move(exchange);
  };
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("\r\n\r\n");
  const std::string piece(64 * 1024, 'x');
  size_t written = 0;
  while (held->write(piece) && written < (size_t{1} << 30)) written += piece.size();
  EXPECT_LT(written, size_t{64} << 20);
  EXPECT_FALSE(closed);  // never called from inside write()
  EXPECT_TRUE(turn_until(loop_, [&] { return closed; }));
}

TEST_F(HttpServerTest, MayBeDestroyedInsideItsHandler) {
  serve();
  handler_ = [this](const HttpExchangePtr& exchange) {
    server_.reset();
    exchange->respond(HttpResponse::text(200, "into the void"));
  };
  RawClient raw = client();
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  EXPECT_EQ(raw.read_all(), "");
  EXPECT_EQ(server_, nullptr);
}

TEST_F(HttpServerTest, MayDieBeforeItsExchanges) {
  serve();
  std::vector<HttpExchangePtr> held;
  int closed = 0;
  handler_ = [&](HttpExchangePtr exchange) {
    if (exchange->request().path == "/stream") exchange->begin_stream(200, {});
    exchange->on_close([&] { ++closed; });
    held.push_back(std::move(exchange));
  };
  RawClient one = client(), two = client();
  one.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  two.send("GET /stream HTTP/1.1\r\nHost: h\r\n\r\n");
  ASSERT_TRUE(turn_until(loop_, [&] { return held.size() == 2; }));
  server_.reset();
  EXPECT_EQ(closed, 0);
  loop_.run_once(0);
  EXPECT_EQ(closed, 2);
  for (const HttpExchangePtr& exchange : held) {
    exchange->respond(HttpResponse::text(200, "late"));
    EXPECT_FALSE(exchange->write("late"));
    exchange->end_stream();
  }
  EXPECT_EQ(one.read_all(), "");
}

TEST_F(HttpServerTest, StopsListeningButServesOn) {
  serve();
  RawClient raw = client();
  raw.send("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("GET /1");
  server_->stop_listening();
  raw.send("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("GET /2");
}

TEST_F(HttpServerTest, KnowsWhoSpeaksOverAUnixSocket) {
  const TemporaryDirectory directory;
  HttpRequest seen;
  HttpServer server(loop_, [&](const HttpExchangePtr& exchange) {
    seen = exchange->request();
    exchange->respond(HttpResponse::text(200, "ok"));
  });
  ASSERT_TRUE(server.listen_unix(directory / "admin.sock", 0600));
  struct stat status {};
  ASSERT_EQ(::stat((directory / "admin.sock").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  RawClient raw(loop_, connect_unix(directory / "admin.sock"));
  raw.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n");
  raw.read_until("ok");
  EXPECT_FALSE(seen.peer);
  EXPECT_EQ(seen.peer_uid, ::getuid());
}

TEST_F(HttpServerTest, ReplacesStaleSocketsOnly) {
  const TemporaryDirectory directory;
  const std::string path = directory / "admin.sock";
  const HttpHandler handler = [](const HttpExchangePtr&) {};
  {
    UniqueFd stale(::socket(AF_UNIX, SOCK_STREAM, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    ASSERT_EQ(::bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  {
    HttpServer living(loop_, handler);
    ASSERT_TRUE(living.listen_unix(path));
    HttpServer second(loop_, handler);
    const Result<void> refused = second.listen_unix(path);
    ASSERT_FALSE(refused);
    EXPECT_THAT(refused.error().message, HasSubstr("a living process listens there"));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  std::ofstream(path) << "precious";
  HttpServer third(loop_, handler);
  EXPECT_FALSE(third.listen_unix(path));
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_FALSE(third.listen_unix(std::string(200, 'x')));
}

TEST_F(HttpServerTest, SaysWhyItCannotListen) {
  serve();
  HttpServer second(loop_, [](const HttpExchangePtr&) {});
  const Result<void> refused = second.listen_tcp(server_->tcp_endpoint());
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("listen on 127.0.0.1:"));
  EXPECT_THAT(refused.error().message, HasSubstr("Address already in use"));
}

TEST(HttpProblem, IsValidJson) {
  const HttpResponse problem = HttpResponse::problem(400, "Bad \"Request\"", "line 1\nback\\slash");
  EXPECT_EQ(problem.header("content-type"), "application/problem+json");
  EXPECT_EQ(problem.body,
            "{\"type\":\"about:blank\",\"title\":\"Bad \\\"Request\\\"\",\"status\":400,\"detail\":\"line "
            "1\\u000aback\\\\slash\"}\n");
}

}  // namespace tidegate::http_server_test
