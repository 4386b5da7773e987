// SPDX-License-Identifier: Apache-2.0
// gRPC through the proxy: statuses, deadlines, and rare messages.
#include <gtest/gtest.h>

#include <string>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/pool.h"
#include "core/clock.h"
#include "l7/exchange/failure.h"
#include "tests/unit/l7/http2_backend.h"

namespace tidegate::l7::test::grpc_test {

Http2Fields grpc_call(std::string timeout = "") {
  Http2Fields fields = Http2Client::request("/echo.Echo/Say", "POST");
  fields.emplace_back("content-type", "application/grpc+proto");
  fields.emplace_back("te", "trailers");
  if (!timeout.empty()) fields.emplace_back("grpc-timeout", timeout);
  return fields;
}
const std::string kMessage("\0\0\0\0\5hello", 10);

TEST_F(Http2Backend, AGrpcCallPassesWithItsStatus) {
  Http2Origin origin([](const Request& request) {
    EXPECT_EQ(request.fields.at("te"), "trailers");
    EXPECT_EQ(request.fields.at("content-type"), "application/grpc+proto");
    EXPECT_EQ(request.fields.at("grpc-timeout").back(), 'u');
    EXPECT_LT(std::stoul(request.fields.at("grpc-timeout")), 30'000'000u) << "what is left of it";
    Reply reply = says(request.body);
    reply.fields.emplace_back("content-type", "application/grpc+proto");
    reply.trailers = {{"grpc-status", "0"}, {"grpc-message", "fine"}};
    return reply;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(grpc_call("30S"), kMessage);
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).body, kMessage);
  EXPECT_EQ(client.result(id).trailers.at("grpc-status"), "0");
  EXPECT_EQ(client.result(id).trailers.at("grpc-message"), "fine");
}

TEST_F(Http2Backend, AFailureIsToldToAGrpcClientAsItsStatus) {
  Http2Origin origin([](const Request&) {
    Reply reply;
    reply.silent = true;
    reply.reset = NGHTTP2_INTERNAL_ERROR;
    return reply;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(grpc_call(), kMessage);
  ASSERT_TRUE(client.finish(id));
  const StreamResult& result = client.result(id);
  EXPECT_EQ(result.fields.at(":status"), "200");
  EXPECT_EQ(result.fields.at("content-type"), "application/grpc");
  EXPECT_EQ(result.fields.at("grpc-status"), "14");
  EXPECT_EQ(result.fields.at("grpc-message"), info(Failure::stream_reset).sentence);
  EXPECT_EQ(result.fields.count("content-length"), 0u);
  EXPECT_EQ(result.body, "");
}

TEST_F(Http2Backend, AGrpcAnswerThatBreaksOffEndsWithAStatus) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says(request.body);
    reply.reset = NGHTTP2_INTERNAL_ERROR;
    return reply;
  });
  start(origin.endpoint());
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(grpc_call(), kMessage);
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).body, kMessage);
  EXPECT_EQ(client.result(id).trailers.at("grpc-status"), "14");
}

TEST_F(Http2Backend, DeadlineExceeded) {
  Http2Origin origin([](const Request&) {
    Reply reply;
    reply.silent = true;
    return reply;
  });
  start(origin.endpoint(), [](Pool& pool) { pool.eject_after = 1; });
  Http2Client client(edge_.endpoint());
  const int32_t id = client.submit(grpc_call("50m"), kMessage);
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).fields.at("grpc-status"), "4");
  EXPECT_EQ(failures(Failure::deadline_exceeded), 1u);
  EXPECT_EQ(charged(), 0u) << "the client chose the time";
  EXPECT_TRUE(edge_.run_until([&] { return origin.resets() == 1; })) << "the backend is told";
}

// minimum_rate is for bodies that should move. Messages of a gRPC stream come only when there is something to send.
using LongHttp2Backend = Http2Backend;
TEST_F(LongHttp2Backend, AGrpcClientMaySendSmallMessagesRarelyAndAnotherClientMayNot) {
  Http2Origin origin([](const Request& request) { return says(std::to_string(request.body.size())); });
  Listener& listener = edge_.model.listeners[0];
  listener.idle_timeout_ms = 3000;
  listener.minimum_rate_bytes = uint64_t{1} << 30;  // so large that a message restores almost nothing
  start(origin.endpoint());
  Http2Fields ordinary = Http2Client::request("/", "POST");
  for (const bool grpc : {true, false}) {
    Http2Client client(edge_.endpoint());
    const int32_t id = client.submit_fed(grpc ? grpc_call() : ordinary);
    client.send_all();
    for (int i = 0; i < 8; ++i) {
      const uint64_t next_ns = monotonic_ns() + 500 * kNsPerMs;
      edge_.run_until([&] { return monotonic_ns() >= next_ns; });
      client.feed(id, kMessage, false);
    }
    client.feed(id, kMessage, true);
    ASSERT_TRUE(client.finish(id));
    EXPECT_EQ(client.result(id).fields.at(":status"), grpc ? "200" : "408");
    if (grpc) EXPECT_EQ(client.result(id).body, "90");
  }
}

}  // namespace tidegate::l7::test::grpc_test
