// SPDX-License-Identifier: Apache-2.0
// The probe of type grpc against a small server by nghttp2.

#include "control/health/probe_grpc.h"
#include "conf/model/probe.h"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

#include "tests/unit/control/host.h"

namespace tidegate::testing::probe_grpc_test {

using ::testing::HasSubstr;

// Answers one connection at a time: each request gets the same response.
class GrpcServer final : private IoHandler {
 public:
  explicit GrpcServer(EventLoop& loop) : loop_(loop), fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage address{};
    socklen_t length = Endpoint::parse("127.0.0.1:0")->to_sockaddr(address);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), length), 0);
    EXPECT_EQ(::listen(fd_.get(), 16), 0);
    length = sizeof address;
    EXPECT_EQ(::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &length), 0);
    endpoint = Endpoint::from(address);
    loop_.add(fd_.get(), EPOLLIN, this);
    nghttp2_session_callbacks_new(&callbacks_);
    nghttp2_session_callbacks_set_on_header_callback(callbacks_, &on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks_, &on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks_, &on_frame);
  }
  ~GrpcServer() {
    drop();
    loop_.remove(fd_.get());
    nghttp2_session_callbacks_del(callbacks_);
  }

  Endpoint endpoint;
  std::string status = "200", grpc_status = "0";
  std::string message;  // of the response; empty: none
  std::string path, request;
  bool speaks_http1 = false;

 private:
  static GrpcServer& self(void* pointer) { return *static_cast<GrpcServer*>(pointer); }
  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_bytes,
                       const uint8_t* value, size_t value_bytes, uint8_t, void* pointer) {
    if (std::string_view(reinterpret_cast<const char*>(name), name_bytes) == ":path")
      self(pointer).path.assign(reinterpret_cast<const char*>(value), value_bytes);
    return 0;
  }
  static int on_data(nghttp2_session*, uint8_t, int32_t, const uint8_t* data, size_t bytes, void* pointer) {
    self(pointer).request.append(reinterpret_cast<const char*>(data), bytes);
    return 0;
  }
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* pointer) {
    const bool last = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    const bool of_request = frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    if (last && of_request) self(pointer).respond(frame->hd.stream_id);
    return 0;
  }
  static nghttp2_nv pair(std::string_view name, std::string_view value) {
    const auto bytes = [](std::string_view text) {
      return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
    };
    return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
  }
  static ssize_t read_message(nghttp2_session* session, int32_t id, uint8_t* out, size_t bytes, uint32_t* flags,
                              nghttp2_data_source*, void* pointer) {
    GrpcServer& server = self(pointer);
    const size_t count = std::min(bytes, server.message.size() - server.sent_);
    std::copy_n(server.message.data() + server.sent_, count, reinterpret_cast<char*>(out));
    server.sent_ += count;
    if (server.sent_ < server.message.size()) return static_cast<ssize_t>(count);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (!server.grpc_status.empty()) {
      *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
      const nghttp2_nv trailer = pair("grpc-status", server.grpc_status);
      nghttp2_submit_trailer(session, id, &trailer, 1);
    }
    return static_cast<ssize_t>(count);
  }
  void respond(int32_t id) {
    sent_ = 0;
    const nghttp2_nv fields[] = {pair(":status", status), pair("content-type", "application/grpc")};
    nghttp2_data_provider body{};
    body.read_callback = &read_message;
    nghttp2_submit_response(session_, id, fields, 2, &body);
  }

  void on_io(uint32_t) override {
    if (!client_) return accept();
    char buffer[4'096];
    const ssize_t got = ::recv(client_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return drop();
    if (speaks_http1) {
      ::send(client_.get(), "HTTP/1.1 400 Bad Request\r\n\r\n", 28, MSG_NOSIGNAL);
      return;
    }
    nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer), static_cast<size_t>(got));
    flush();
  }
  void accept() {
    client_.reset(::accept4(fd_.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client_) return;
    request.clear();
    nghttp2_session_server_new(&session_, callbacks_, this);
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, nullptr, 0);
    loop_.add(client_.get(), EPOLLIN, this);
    if (!speaks_http1) flush();
  }
  void flush() {
    const uint8_t* data = nullptr;
    ssize_t bytes = 0;
    while ((bytes = nghttp2_session_mem_send(session_, &data)) > 0) {
      ::send(client_.get(), data, static_cast<size_t>(bytes), MSG_NOSIGNAL);
    }
  }
  void drop() {
    if (!client_) return;
    loop_.remove(client_.get());
    client_.reset();
    nghttp2_session_del(session_);
    session_ = nullptr;
  }

  EventLoop& loop_;
  UniqueFd fd_, client_;
  nghttp2_session_callbacks* callbacks_ = nullptr;
  nghttp2_session* session_ = nullptr;
  size_t sent_ = 0;
};

std::string health(char status) { return std::string("\0\0\0\0\2\x08", 6) + status; }

class ProbeGrpc : public ::testing::Test {
 protected:
  ProbeResult probe(const std::string& service = {}) {
    ProbeTarget target;
    target.type = ProbeType::grpc;
    target.endpoint = server.endpoint;
    target.grpc_service = service;
    target.timeout_ms = kPatienceMs;
    std::optional<ProbeResult> result;
    const auto attempt = start_probe(loop, target, [&](ProbeResult given) { result = std::move(given); });
    EXPECT_TRUE(pump(loop, [&] { return result.has_value(); }));
    return result.value_or(ProbeResult{});
  }
  EventLoop loop;
  GrpcServer server{loop};
};

TEST_F(ProbeGrpc, AsksTheServiceAndTakesServing) {
  server.message = health(1);
  const ProbeResult result = probe("app.Orders");
  EXPECT_TRUE(result.success) << result.reason;
  EXPECT_EQ(server.path, "/grpc.health.v1.Health/Check");
  EXPECT_EQ(server.request, std::string("\0\0\0\0\x0c\x0a\x0a", 7) + "app.Orders");
}

TEST_F(ProbeGrpc, TellsWhatIsWrong) {
  server.message = health(2);
  EXPECT_EQ(probe().reason, "status NOT_SERVING, expected SERVING");
  server.message.clear();
  server.grpc_status = "5";
  EXPECT_EQ(probe().reason, "grpc-status 5");
  server.grpc_status.clear();
  EXPECT_EQ(probe().reason, "grpc-status is missing");
  server.status = "503";
  const ProbeResult refused = probe();
  EXPECT_EQ(refused.reason, "HTTP status 503");
  EXPECT_EQ(refused.cause, ProbeCause::answer);
}

TEST_F(ProbeGrpc, ABackendThatSpeaksSomethingElseIsDown) {
  server.speaks_http1 = true;
  EXPECT_THAT(probe().reason, HasSubstr("does not speak HTTP/2"));
}

TEST_F(ProbeGrpc, AnEndlessAnswerHasABound) {
  server.message = std::string(60 * 1024, 'x');  // more than is read with its frames, less than the window
  server.message += std::string(60 * 1024, 'x');
  EXPECT_EQ(probe().reason, "the answer is too long");
}

TEST(ProbeGrpcMessage, ReadsWhatItKnowsAndSurvivesTheRest) {
  EXPECT_EQ(grpc_health_request(""), std::string(5, '\0'));
  EXPECT_EQ(grpc_health_fault(health(1)), "");
  EXPECT_EQ(grpc_health_fault(std::string(5, '\0')), "status UNKNOWN, expected SERVING") << "no field is the default";
  EXPECT_EQ(grpc_health_fault(health(9)), "status of a later version, expected SERVING");
  EXPECT_EQ(grpc_health_fault(std::string("\0\0\0\0\6\x12\2ab\x08\1", 11)), "") << "a field of a later version";
  for (const std::string& broken : {std::string(), std::string("\1\0\0\0\2\x08\1", 7), std::string("\0\0\0\0\1\x08", 6),
                                    std::string("\0\0\0\0\2\x08\x80", 7)}) {
    EXPECT_THAT(grpc_health_fault(broken), HasSubstr("no message of grpc.health.v1"));
  }
}

}  // namespace tidegate::testing::probe_grpc_test
