// SPDX-License-Identifier: Apache-2.0
#include "core/http_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "http_fixture.h"

namespace tidegate::http_client_test {

using ::testing::EndsWith;
using ::testing::HasSubstr;

using Outcome = std::optional<Result<HttpResponse>>;

// A client against bytes that a test writes itself.
class HttpClientTest : public ::testing::Test {
 protected:
  std::unique_ptr<HttpCall> call(HttpClientRequest request = {}) {
    HttpTarget target;
    target.endpoint = raw_.endpoint();
    return http_call(loop_, target, std::move(request),
                     [this](Result<HttpResponse> result) { outcome_ = std::move(result); });
  }
  // The client's result for `bytes` followed by a close.
  Result<HttpResponse> outcome_of(std::string_view bytes, HttpClientRequest request = {}) {
    outcome_.reset();
    const auto running = call(std::move(request));
    UniqueFd fd = raw_.accept();
    RawClient peer(loop_, std::move(fd));
    peer.read_until("\r\n\r\n");
    peer.send(bytes);
    peer.close();
    EXPECT_TRUE(turn_until(loop_, [this] { return outcome_.has_value(); }));
    return *outcome_;
  }

  EventLoop loop_;
  RawServer raw_;
  Outcome outcome_;
};

TEST_F(HttpClientTest, SendsARequestThatItsServerReadsAlike) {
  HttpClientRequest request;
  request.method = "POST";
  request.target = "/a?b";
  request.host = "h.test";
  request.headers = {{"X-Y", "z"}};
  request.body = "body";
  const auto running = call(std::move(request));
  RawClient peer(loop_, raw_.accept());
  EXPECT_EQ(peer.read_until("body"),
            "POST /a?b HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\nX-Y: z\r\nContent-Length: 4\r\n\r\nbody");
}

TEST_F(HttpClientTest, ReadsEveryFraming) {
  EXPECT_EQ(outcome_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef")->body, "abc");
  EXPECT_EQ(outcome_of("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n")->body,
            "abc");
  EXPECT_EQ(outcome_of("HTTP/1.0 200 OK\r\n\r\nabc")->body, "abc");
  EXPECT_EQ(outcome_of("HTTP/1.1 204 No Content\r\n\r\n")->status, 204);
  HttpClientRequest head;
  head.method = "HEAD";
  EXPECT_EQ(outcome_of("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", head)->body, "");
}

TEST_F(HttpClientTest, PassesOverInterimResponses) {
  const auto result = outcome_of(
      "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 404 Not Found\r\nX-Y: "
      "z\r\nContent-Length: 0\r\n\r\n");
  ASSERT_TRUE(result);
  EXPECT_EQ(result->status, 404);
  EXPECT_EQ(result->header("x-y"), "z");
  EXPECT_EQ(result->header("link"), "");
}

TEST_F(HttpClientTest, TakesSomeInterimResponsesButNotWithoutEnd) {
  std::string few, many;
  for (int i = 0; i < 20; ++i) few += "HTTP/1.1 103 Early Hints\r\n\r\n";
  for (int i = 0; i < 5; ++i) many += few;
  const std::string last = "HTTP/1.1 204 No Content\r\n\r\n";
  EXPECT_TRUE(outcome_of(few + last));
  const auto result = outcome_of(many + last);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("interim"), std::string::npos);
}

TEST_F(HttpClientTest, SaysWhatIsWrongWithAnAnswer) {
  const auto message = [this](std::string_view bytes) { return outcome_of(bytes).error().message; };
  const std::string peer = "read " + raw_.endpoint().to_string() + ": ";
  EXPECT_EQ(message(""), peer + "the peer closed the connection before it had answered");
  EXPECT_EQ(message("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab"),
            peer + "the peer closed the connection within the body");
  EXPECT_EQ(message("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"),
            peer + "the peer closed the connection within the body");
  EXPECT_EQ(message("SSH-2.0-OpenSSH_9.2\r\n"), peer + "the status line is malformed");
  EXPECT_EQ(message("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
            peer + "the chunked framing is malformed");
  EXPECT_EQ(message("HTTP/1.1 101 Switching Protocols\r\n\r\n"), peer + "the peer switched protocols unasked");
}

TEST_F(HttpClientTest, BoundsTheBody) {
  HttpClientRequest request;
  request.max_body_bytes = 3;
  EXPECT_EQ(outcome_of("HTTP/1.0 200 OK\r\n\r\nabc", request)->body, "abc");
  EXPECT_THAT(outcome_of("HTTP/1.0 200 OK\r\n\r\nabcd", request).error().message,
              EndsWith("the body has more than 3 bytes"));
}

TEST_F(HttpClientTest, GivesUpAfterItsTimeout) {
  HttpClientRequest request;
  request.timeout_ms = 20;
  const auto running = call(std::move(request));
  const UniqueFd silent = raw_.accept();
  ASSERT_TRUE(turn_until(loop_, [this] { return outcome_.has_value(); }));
  EXPECT_EQ(outcome_->error().message, "read " + raw_.endpoint().to_string() + ": timed out after 20 ms");
}

TEST_F(HttpClientTest, ReadsAnAnswerGivenBeforeTheRequestWasWhole) {
  HttpClientRequest request;
  request.method = "POST";
  request.body.assign(8 << 20, 'x');
  const auto result = outcome_of("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno", request);
  // The peer closed while our bytes were unread. The kernel may have discarded the peer's answer. Then the error must
  // say so.
  if (result) {
    EXPECT_EQ(result->status, 413);
  } else {
    EXPECT_THAT(result.error().message, HasSubstr(raw_.endpoint().to_string() + ": "));
  }
}

TEST_F(HttpClientTest, CancelsByDestruction) {
  auto running = call();
  const UniqueFd fd = raw_.accept();
  loop_.run_once(0);
  running.reset();
  ASSERT_EQ(::send(fd.get(), "HTTP/1.0 200 OK\r\n\r\n", 19, MSG_NOSIGNAL), 19);
  for (int i = 0; i < 3; ++i) loop_.run_once(kNsPerMs);
  EXPECT_FALSE(outcome_);
}

TEST_F(HttpClientTest, MayBeDestroyedFromItsCallbacks) {
  HttpTarget target;
  target.endpoint = raw_.endpoint();
  const auto witness = std::make_shared<int>(1);
  int pieces = 0;
  std::unique_ptr<HttpCall> running;
  running = http_stream(
      loop_, target, {},
      [&, witness](std::string_view) {
        running.reset();
        pieces += *witness;  // the captures must still exist here
      },
      [](Result<HttpResponse>) { FAIL(); });
  RawClient peer(loop_, raw_.accept());
  peer.read_until("\r\n\r\n");
  peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1\r\nb\r\n");
  EXPECT_TRUE(turn_until(loop_, [&] { return pieces == 1; }));

  bool done = false;
  running = http_call(loop_, target, {}, [&, witness](Result<HttpResponse>) {
    running.reset();
    done = *witness == 1;
  });
  RawClient second(loop_, raw_.accept());
  second.read_until("\r\n\r\n");
  second.send("HTTP/1.1 204 No Content\r\n\r\n");
  EXPECT_TRUE(turn_until(loop_, [&] { return done; }));
}

TEST_F(HttpClientTest, FailsOnlyAfterTheCallIsInItsCallersHands) {
  HttpTarget target;
  target.unix_path = "/nowhere/at/all.sock";
  std::string message;
  std::unique_ptr<HttpCall> running;
  running = http_call(loop_, target, {}, [&](Result<HttpResponse> result) {
    EXPECT_NE(running, nullptr);
    message = result.error().message;
    running.reset();
  });
  EXPECT_EQ(message, "");
  EXPECT_TRUE(turn_until(loop_, [&] { return !message.empty(); }));
  EXPECT_EQ(message, "connect /nowhere/at/all.sock: No such file or directory");
}

TEST(HttpFetch, SaysWhenNobodyListens) {
  HttpTarget target;
  {
    const RawServer gone;
    target.endpoint = gone.endpoint();
  }
  EXPECT_EQ(http_fetch(target, {}).error().message, "connect " + target.endpoint.to_string() + ": Connection refused");
}

TEST(HttpFetch, RefusesToSendWhatIsNoRequest) {
  HttpTarget target;
  HttpClientRequest spaced, injected, empty, host;
  spaced.target = "/a b";
  injected.headers = {{"X", "y\r\nZ: w"}};
  empty.method = "";
  host.host = "a\r\nX: y";
  for (const HttpClientRequest& request : {spaced, injected, empty, host}) {
    EXPECT_THAT(http_fetch(target, request).error().message, HasSubstr("malformed"));
  }
}

// Our client together with our server.
class HttpTogether : public ::testing::TestWithParam<bool> {
 protected:
  HttpTogether()
      : server_(loop_, [](HttpExchangePtr exchange) {
          const HttpRequest& request = exchange->request();
          if (request.path == "/stream") {
            exchange->begin_stream(200, {});
            for (int i = 0; i < 100; ++i) exchange->write(std::string(1000, 'x'));
            return exchange->end_stream();
          }
          if (request.path == "/refused") return exchange->respond(HttpResponse::problem(403, "Forbidden", "no"));
          exchange->respond(HttpResponse::text(200, request.method + std::to_string(request.body.size())));
        }) {
    if (GetParam()) {
      target_.unix_path = directory_ / "s";
      EXPECT_TRUE(server_.listen_unix(target_.unix_path));
    } else {
      EXPECT_TRUE(server_.listen_tcp(*Endpoint::parse("[::1]:0")));
      target_.endpoint = server_.tcp_endpoint();
    }
  }
  Result<HttpResponse> run(HttpClientRequest request, std::string* streamed = nullptr) {
    Outcome outcome;
    const HttpDone done = [&](Result<HttpResponse> result) { outcome = std::move(result); };
    const auto running = streamed == nullptr ? http_call(loop_, target_, std::move(request), done)
                                             : http_stream(
                                                   loop_, target_, std::move(request),
                                                   [&](std::string_view bytes) { *streamed += bytes; }, done);
    EXPECT_TRUE(turn_until(loop_, [&] { return outcome.has_value(); }));
    return *outcome;
  }

  TemporaryDirectory directory_;
  EventLoop loop_;
  HttpServer server_;
  HttpTarget target_;
};

TEST_P(HttpTogether, ExchangeLargeBodies) {
  HttpClientRequest request;
  request.method = "PUT";
  request.body.assign(5'000'000, 'x');
  EXPECT_EQ(run(request)->body, "PUT5000000");
  request.shared_body = std::make_shared<const std::string>(3'000'000, 'y');
  for (int time = 0; time < 2; ++time) EXPECT_EQ(run(request)->body, "PUT3000000");
  EXPECT_EQ(request.shared_body.use_count(), 1);
}

TEST_P(HttpTogether, StreamPiecesAndThenAnEmptyBody) {
  HttpClientRequest request;
  request.target = "/stream";
  std::string streamed;
  const auto result = run(request, &streamed);
  ASSERT_TRUE(result) << result.error().message;
  EXPECT_EQ(streamed.size(), 100'000u);
  EXPECT_EQ(result->body, "");
}

TEST_P(HttpTogether, ARefusedStreamHasItsReasonInTheResponse) {
  HttpClientRequest request;
  request.target = "/refused";
  std::string streamed;
  const auto result = run(request, &streamed);
  EXPECT_EQ(result->status, 403);
  EXPECT_EQ(streamed, "");
  EXPECT_THAT(result->body, HasSubstr("\"detail\":\"no\""));
}

INSTANTIATE_TEST_SUITE_P(OverUnixAndTcp, HttpTogether, ::testing::Bool(),
                         [](const auto& instance) { return instance.param ? "Unix" : "Tcp6"; });

}  // namespace tidegate::http_client_test
