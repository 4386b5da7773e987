// SPDX-License-Identifier: Apache-2.0
#include "control/health/probe_grpc.h"

#include <nghttp2/nghttp2.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "control/health/probe_attempt.h"
#include "control/limits.h"
#include "core/tls.h"

namespace tidegate {

namespace {

constexpr size_t kPrefixBytes = 5;  // a flag and the length, before each message
constexpr std::array<const char*, 4> kServing = {"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"};

// Reads a varint of protobuf and moves `text` past it.
std::optional<uint64_t> take_varint(std::string_view& text) {
  uint64_t value = 0;
  for (unsigned shift = 0; shift < 64 && !text.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(text.front());
    text.remove_prefix(1);
    value |= uint64_t{byte & 0x7fu} << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return std::nullopt;
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

}  // namespace

std::string grpc_health_request(std::string_view service) {
  std::string message;
  if (!service.empty()) {
    message += '\x0a';  // field 1, a string
    append_varint(message, service.size());
    message += service;
  }
  std::string framed(1, '\0');  // not compressed
  for (int shift = 24; shift >= 0; shift -= 8) framed += static_cast<char>(message.size() >> shift & 0xff);
  return framed + message;
}

std::string grpc_health_fault(std::string_view message) {
  if (message.size() < kPrefixBytes || message.front() != '\0') return "the answer is no message of grpc.health.v1";
  message.remove_prefix(kPrefixBytes);
  uint64_t status = 0;
  while (!message.empty()) {
    const std::optional<uint64_t> tag = take_varint(message);
    const std::optional<uint64_t> value = tag ? take_varint(message) : std::nullopt;
    if (!value) return "the answer is no message of grpc.health.v1";
    if (*tag == 0x08) status = *value;  // field 1, an enum
    if ((*tag & 7) == 2)
      message.remove_prefix(std::min<uint64_t>(*value, message.size()));  // skips a field of a later version
  }
  if (status == 1) return {};
  return std::string("status ") + (status < kServing.size() ? kServing[status] : "of a later version") +
         ", expected SERVING";
}

namespace {

class GrpcAttempt final : public SocketAttempt {
 public:
  GrpcAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : SocketAttempt(loop, target, std::move(done), SOCK_STREAM),
        target_(target),
        to_send_(grpc_health_request(target.grpc_service)) {}
  ~GrpcAttempt() override { nghttp2_session_del(session_); }

 private:
  void on_ready() override {
    if (target_.tls && !tls_done_) {
      if (!shake_hands()) return;
    }
    if (session_ == nullptr) begin();
    while (true) {
      if (!send_all()) return;
      // nghttp2 has ended the connection, and the reason was reported.
      if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
        return end("the backend does not speak HTTP/2 as it should", ProbeCause::answer);
      }
      std::array<char, 4'096> buffer;
      const TlsStream::Io got = read(buffer);
      if (got.status == TlsStatus::want_read) break;
      if (got.status == TlsStatus::want_write) return wait_for(EPOLLOUT);
      if (got.status != TlsStatus::ok || got.bytes == 0) {
        return end("the backend closed the connection without an answer", ProbeCause::connection);
      }
      received_ += got.bytes;
      const ssize_t taken =
          nghttp2_session_mem_recv(session_, reinterpret_cast<const uint8_t*>(buffer.data()), got.bytes);
      if (taken < 0) return end("the backend does not speak HTTP/2 as it should", ProbeCause::answer);
      if (closed_) return judge();
      if (received_ > kProbeGrpcBytes) return end("the answer is too long", ProbeCause::answer);
    }
    wait_for(EPOLLIN);
  }

  // Returns true if it is complete. False: the attempt waits or is over.
  bool shake_hands() {
    if (!tls_) {
      const auto context = probe_tls_context(target_);
      if (!context) return end(context.error().message, ProbeCause::certificate), false;
      const std::string name = target_.host.empty() ? target_.endpoint.address.to_string() : target_.host;
      tls_ = std::make_unique<TlsStream>(*context, fd(), false, name);
    }
    const TlsStatus status = tls_->handshake();
    if (status == TlsStatus::want_read || status == TlsStatus::want_write) {
      wait_for(status == TlsStatus::want_read ? EPOLLIN : EPOLLOUT);
      return false;
    }
    if (status != TlsStatus::ok) return end("tls: " + tls_->last_error(), ProbeCause::certificate), false;
    if (tls_->alpn() != "h2") return end("the backend does not choose h2 by ALPN", ProbeCause::answer), false;
    return tls_done_ = true;
  }

  static nghttp2_session_callbacks* callbacks() {
    static nghttp2_session_callbacks* const made = [] {
      nghttp2_session_callbacks* c = nullptr;
      nghttp2_session_callbacks_new(&c);
      nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &on_data);
      nghttp2_session_callbacks_set_on_stream_close_callback(c, &on_closed);
      return c;
    }();
    return made;
  }
  static GrpcAttempt& self(void* pointer) { return *static_cast<GrpcAttempt*>(pointer); }
  static int on_header(nghttp2_session*, const nghttp2_frame*, const uint8_t* name, size_t name_bytes,
                       const uint8_t* value, size_t value_bytes, uint8_t, void* pointer) {
    const std::string_view key(reinterpret_cast<const char*>(name), name_bytes);
    const std::string_view text(reinterpret_cast<const char*>(value), std::min<size_t>(value_bytes, 16));
    if (key == ":status") self(pointer).http_status_ = text;
    if (key == "grpc-status") self(pointer).grpc_status_ = text;
    return 0;
  }
  static int on_data(nghttp2_session*, uint8_t, int32_t, const uint8_t* data, size_t bytes, void* pointer) {
    self(pointer).answer_.append(reinterpret_cast<const char*>(data), bytes);
    return 0;
  }
  static int on_closed(nghttp2_session*, int32_t, uint32_t error, void* pointer) {
    self(pointer).closed_ = true;
    self(pointer).reset_ = error;
    return 0;
  }
  static ssize_t read_request(nghttp2_session*, int32_t, uint8_t* out, size_t bytes, uint32_t* flags,
                              nghttp2_data_source*, void* pointer) {
    std::string& message = self(pointer).to_send_;
    const size_t count = std::min(bytes, message.size());
    std::copy_n(message.data(), count, reinterpret_cast<char*>(out));
    message.erase(0, count);
    if (message.empty()) *flags |= NGHTTP2_DATA_FLAG_EOF;
    return static_cast<ssize_t>(count);
  }

  void begin() {
    nghttp2_session_client_new(&session_, callbacks(), this);
    const nghttp2_settings_entry no_push{NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, &no_push, 1);
    const std::string authority = target_.host.empty() ? target_.endpoint.to_string() : target_.host;
    const std::pair<std::string_view, std::string_view> fields[] = {{":method", "POST"},
                                                                    {":scheme", target_.tls ? "https" : "http"},
                                                                    {":path", kCheckPath},
                                                                    {":authority", authority},
                                                                    {"te", "trailers"},
                                                                    {"content-type", "application/grpc"},
                                                                    {"user-agent", "tidegate-probe"}};
    std::vector<nghttp2_nv> pairs;
    const auto bytes_of = [](std::string_view text) {
      // nghttp2 copies it and does not write to it
      return const_cast<uint8_t*>(reinterpret_cast<const uint8_t*>(text.data()));
    };
    for (const auto& [name, value] : fields) {
      pairs.push_back({bytes_of(name), bytes_of(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE});
    }
    nghttp2_data_provider body{};
    body.read_callback = &read_request;
    nghttp2_submit_request(session_, nullptr, pairs.data(), pairs.size(), &body, this);
  }

  // Returns false if the attempt waits or is over.
  bool send_all() {
    while (true) {
      if (unsent_.empty()) {
        const uint8_t* data = nullptr;
        const ssize_t bytes = nghttp2_session_mem_send(session_, &data);
        if (bytes < 0) return end(nghttp2_strerror(static_cast<int>(bytes)), ProbeCause::answer), false;
        if (bytes == 0) return true;
        unsent_.assign(reinterpret_cast<const char*>(data), static_cast<size_t>(bytes));
      }
      const TlsStream::Io sent = write();
      if (sent.status == TlsStatus::want_write || sent.status == TlsStatus::want_read) {
        wait_for(sent.status == TlsStatus::want_write ? EPOLLOUT : EPOLLIN);
        return false;
      }
      if (sent.status != TlsStatus::ok) return end("the connection broke", ProbeCause::connection), false;
      unsent_.erase(0, sent.bytes);
    }
  }

  TlsStream::Io read(std::array<char, 4'096>& buffer) {
    if (tls_) return tls_->read(buffer.data(), buffer.size());
    const ssize_t got = ::recv(fd(), buffer.data(), buffer.size(), 0);
    if (got >= 0) return {got == 0 ? TlsStatus::closed : TlsStatus::ok, static_cast<size_t>(got)};
    return {errno == EAGAIN ? TlsStatus::want_read : TlsStatus::error, 0};
  }
  TlsStream::Io write() {
    if (tls_) return tls_->write(unsent_.data(), unsent_.size());
    const ssize_t sent = ::send(fd(), unsent_.data(), unsent_.size(), MSG_NOSIGNAL);
    if (sent >= 0) return {TlsStatus::ok, static_cast<size_t>(sent)};
    return {errno == EAGAIN ? TlsStatus::want_write : TlsStatus::error, 0};
  }

  void judge() {
    if (reset_ != NGHTTP2_NO_ERROR) {
      return end(fmt::format("the stream was reset: {}", nghttp2_http2_strerror(reset_)), ProbeCause::answer);
    }
    if (http_status_ != "200") return end(fmt::format("HTTP status {}", http_status_), ProbeCause::answer);
    if (grpc_status_ != "0") {
      return end(fmt::format("grpc-status {}", grpc_status_.empty() ? "is missing" : grpc_status_), ProbeCause::answer);
    }
    end(grpc_health_fault(answer_), ProbeCause::answer);
  }
  // With an empty text, the backend is up.
  void end(std::string why, ProbeCause cause) {
    tls_.reset();
    finish({why.empty(), why, true, cause});
  }

  static constexpr std::string_view kCheckPath = "/grpc.health.v1.Health/Check";

  const ProbeTarget target_;
  std::string to_send_;  // rest of the request's body
  std::unique_ptr<TlsStream> tls_;
  bool tls_done_ = false;
  nghttp2_session* session_ = nullptr;
  std::string unsent_, answer_, http_status_, grpc_status_;
  size_t received_ = 0;
  uint32_t reset_ = 0;
  bool closed_ = false;
};

}  // namespace

std::unique_ptr<ProbeAttempt> start_grpc_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  return std::make_unique<GrpcAttempt>(loop, target, std::move(done));
}

}  // namespace tidegate
