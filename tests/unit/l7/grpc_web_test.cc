// SPDX-License-Identifier: Apache-2.0
// gRPC-Web in front of a gRPC backend: both forms, over both versions of HTTP.
#include "l7/exchange/grpc_web.h"
#include "conf/model.h"
#include "conf/model/pool.h"

#include <gtest/gtest.h>

#include "core/crypto.h"
#include "l7/exchange/failure.h"
#include "tests/unit/l7/http2_backend.h"

namespace tidegate::l7::test::grpc_web_test {

const std::string kHello("\0\0\0\0\5hello", 10);
const std::string kYou("\0\0\0\0\3you", 8);

std::string trailer_frame(const std::string& lines) {
  std::string frame("\x80\0\0\0\0", 5);
  frame[4] = static_cast<char>(lines.size());
  return frame + lines;
}

RequestHead head_of(const char* type) {
  RequestHead head;
  head.method = "POST";
  head.body = BodyKind::known;
  head.content_length = 7;
  head.fields.add_own("Content-Type", "content-type", type, FieldKind::other);
  return head;
}

TEST(GrpcWeb, TakesItsOwnContentTypesAlone) {
  Arena arena;
  for (const char* other : {"application/grpc", "application/grpc+proto", "application/grpc-webby", "text/plain",
                            "application/grpc-web-texts"}) {
    RequestHead head = head_of(other);
    EXPECT_EQ(GrpcWeb::take(head, arena), nullptr) << other;
  }
  const std::pair<const char*, const char*> types[] = {{"application/grpc-web", "application/grpc"},
                                                       {"application/grpc-web+proto", "application/grpc+proto"},
                                                       {"application/grpc-web-text", "application/grpc"},
                                                       {"application/grpc-web-text+json", "application/grpc+json"}};
  for (const auto& [web, grpc] : types) {
    RequestHead head = head_of(web);
    EXPECT_NE(GrpcWeb::take(head, arena), nullptr);
    EXPECT_EQ(head.fields.find("content-type")->value, grpc);
    EXPECT_TRUE(head.takes_trailers);
    EXPECT_EQ(head.body == BodyKind::known, std::string_view(web).find("text") == std::string_view::npos) << web;
  }
  RequestHead get = head_of("application/grpc-web");
  get.method = "GET";
  EXPECT_EQ(GrpcWeb::take(get, arena), nullptr);
}

// However the text is cut, and wherever it is padded.
TEST(GrpcWeb, DecodesTextInPieces) {
  Arena arena;
  const std::string text = base64_encode(kHello) + base64_encode("a") + base64_encode("bc") + base64_encode("\xff\xfe");
  for (size_t cut = 0; cut <= text.size(); ++cut) {
    RequestHead head = head_of("application/grpc-web-text");
    const std::unique_ptr<GrpcWeb> web = GrpcWeb::take(head, arena);
    std::string got(web->to_backend(text.substr(0, cut)));
    got += web->to_backend(text.substr(cut));
    EXPECT_EQ(got, kHello + "abc\xff\xfe") << cut;
    EXPECT_FALSE(web->broken(true));
  }
  for (const char* bad : {"AAA", "A===", "AA=A", "====", "AA A", "AAA\n", "A-AA", "AAAA="}) {
    RequestHead head = head_of("application/grpc-web-text");
    const std::unique_ptr<GrpcWeb> web = GrpcWeb::take(head, arena);
    web->to_backend(bad);
    EXPECT_TRUE(web->broken(true)) << bad;
  }
}

class GrpcWebCall : public Http2Backend {
 protected:
  void start_web(const Endpoint& origin) {
    const uint32_t pool = edge_.add_pool("p", {origin});
    edge_.model.pools[pool].protocol = BackendProtocol::h2;
    edge_.add_route("/*", pool).grpc_web = true;
    edge_.start();
  }
  Answer call(const std::string& type, const std::string& body, const std::string& more = "") {
    return ask(edge_.endpoint(), "POST /echo.Echo/Say HTTP/1.1\r\nHost: a\r\nContent-Type: " + type +
                                     "\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more + "\r\n" +
                                     body);
  }
};

// Echoes the body as gRPC, with a status.
Reply echo(const Request& request) {
  EXPECT_EQ(request.fields.at("content-type"), "application/grpc+proto");
  EXPECT_EQ(request.fields.at("te"), "trailers");
  Reply reply = says(request.body);
  reply.fields.emplace_back("content-type", "application/grpc+proto");
  reply.trailers = {{"grpc-status", "0"}, {"grpc-message", "fine"}};
  return reply;
}
const std::string kFine = trailer_frame("grpc-status: 0\r\ngrpc-message: fine\r\n");

// The body of a chunked answer as read_answer() gives it.
TEST_F(GrpcWebCall, IsOneOfGrpcForTheBackend) {
  Http2Origin origin(echo);
  start_web(origin.endpoint());
  const Answer binary = call("application/grpc-web+proto", kHello + kYou);
  EXPECT_EQ(binary.status, 200);
  EXPECT_EQ(binary.field("content-type"), "application/grpc-web+proto");
  EXPECT_EQ(binary.field("content-length"), "");
  EXPECT_EQ(binary.body, kHello + kYou + kFine);
  const Answer text = call("application/grpc-web-text+proto", base64_encode(kHello) + base64_encode(kYou));
  EXPECT_EQ(text.field("content-type"), "application/grpc-web-text+proto");
  EXPECT_EQ(text.body, base64_encode(kHello + kYou) + base64_encode(kFine));
  EXPECT_EQ(edge_.metric("tidegate_l7_grpc_web_calls_total"), 2u);

  Http2Client client(edge_.endpoint());
  Http2Fields fields = Http2Client::request("/echo.Echo/Say", "POST");
  fields.emplace_back("content-type", "application/grpc-web+proto");
  const int32_t id = client.submit(fields, kHello);
  ASSERT_TRUE(client.finish(id));
  EXPECT_EQ(client.result(id).body, kHello + kFine);
  EXPECT_TRUE(client.result(id).trailers.empty());
}

TEST_F(GrpcWebCall, CarriesLargeMessagesInTextForm) {
  Http2Origin origin(echo);
  start_web(origin.endpoint());
  std::string message("\0\0\3\xd0\x90", 5);
  for (size_t i = 0; message.size() < 250'005; ++i) message.push_back(static_cast<char>(i * i >> 3));
  const Answer text = call("application/grpc-web-text+proto", base64_encode(message));
  std::string got;
  RequestHead head = head_of("application/grpc-web-text");
  Arena arena;
  got = GrpcWeb::take(head, arena)->to_backend(text.body);
  EXPECT_TRUE(got == message + kFine) << got.size();
}

TEST_F(GrpcWebCall, LeavesWhatIsNoGrpcWebAsItIs) {
  Http2Origin origin([](const Request& request) {
    Reply reply = says(request.fields.at("content-type") + " " + request.body);
    reply.fields.emplace_back("content-type", "text/plain");
    return reply;
  });
  start_web(origin.endpoint());
  EXPECT_EQ(call("text/plain", "hello").body, "text/plain hello");
  const Answer answer = call("application/grpc-web", "hello");
  EXPECT_EQ(answer.body, "application/grpc hello") << "the backend's answer is no gRPC: a page of an error, maybe";
  EXPECT_EQ(answer.field("content-type"), "text/plain");
}

TEST_F(GrpcWebCall, TellsFailuresAsAStatus) {
  Http2Origin origin([](const Request& request) {
    Reply reply;
    reply.fields.emplace_back("content-type", "application/grpc");
    if (request.fields.at(":path") == "/trailers.Only/Say") {
      reply.fields.emplace_back("grpc-status", "5");
    } else {
      reply.body = kHello;
      reply.reset = NGHTTP2_INTERNAL_ERROR;
    }
    return reply;
  });
  start_web(origin.endpoint());
  const Answer broken_off = call("application/grpc-web", kHello);
  EXPECT_EQ(broken_off.body.substr(0, kHello.size()), kHello);
  EXPECT_NE(broken_off.body.find("grpc-status: 14\r\n"), std::string::npos) << broken_off.body;
  EXPECT_TRUE(broken_off.complete);
  const Answer bad = call("application/grpc-web-text", "no base64");
  EXPECT_EQ(bad.status, 200);
  EXPECT_EQ(bad.field("grpc-status"), "13");
  EXPECT_EQ(bad.field("content-type"), "application/grpc-web-text");
  EXPECT_EQ(failures(Failure::bad_request), 1u);

  const Answer only = ask(edge_.endpoint(),
                          "POST /trailers.Only/Say HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web\r\n"
                          "Content-Length: 0\r\n\r\n");
  EXPECT_EQ(only.field("grpc-status"), "5");
}

TEST_F(GrpcWebCall, HasTheDeadlineThatItsClientGives) {
  Http2Origin origin([](const Request&) {
    Reply reply;
    reply.silent = true;
    return reply;
  });
  start_web(origin.endpoint());
  EXPECT_EQ(call("application/grpc-web", kHello, "grpc-timeout: 50m\r\n").field("grpc-status"), "4");
  EXPECT_EQ(failures(Failure::deadline_exceeded), 1u);
}

}  // namespace tidegate::l7::test::grpc_web_test
