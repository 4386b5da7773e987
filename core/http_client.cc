// SPDX-License-Identifier: Apache-2.0
#include "core/http_client.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "core/http1.h"
#include "core/limits.h"
#include "core/open_files.h"
#include "core/out_buffer.h"
#include "core/transport.h"
#include "core/vanished.h"

namespace tidegate {
namespace {

constexpr http1::Limits kResponseLimits{.fields = http1::kMaxFields};
constexpr size_t kResponseReadBytes = 16 * 1024;
constexpr int kReadsPerWake = 64;  // so that a fast stream does not starve the loop

std::string peer_name(const HttpTarget& target) {
  return target.unix_path.empty() ? target.endpoint.to_string() : target.unix_path;
}

// Opens a non-blocking socket that is connected or connecting. It does not use the last descriptors. `own_limit` is set
// if the failure says nothing about the peer.
Result<UniqueFd> open_socket(const HttpTarget& target, bool& own_limit) {
  sockaddr_storage address{};
  socklen_t length = 0;
  const std::string peer = peer_name(target);
  if (target.unix_path.empty()) {
    length = target.endpoint.to_sockaddr(address);
  } else {
    sockaddr_un local{};
    local.sun_family = AF_UNIX;
    if (target.unix_path.size() >= sizeof local.sun_path) return fail("connect " + peer + ": the path is too long");
    std::memcpy(local.sun_path, target.unix_path.data(), target.unix_path.size());
    std::memcpy(&address, &local, sizeof local);
    length = sizeof local;
  }
  UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd || is_reserved_file(fd.get())) {
    const int error = fd ? EMFILE : errno;
    own_limit = is_own_limit(error);
    return fail("connect " + peer + ": " + std::strerror(error));
  }
  // A client's last message of a TLS 1.3 handshake has no answer. Without this, the request after it would wait for an
  // acknowledgement, which the peer delays by 40 ms.
  const int on = 1;
  if (address.ss_family != AF_UNIX) ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (target.so_mark && ::setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &*target.so_mark, sizeof *target.so_mark) != 0) {
    return fail(fmt::format("mark the socket to {} with {}: {}", peer, *target.so_mark, std::strerror(errno)));
  }
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    own_limit = is_own_limit(errno);
    if (errno != EINPROGRESS) return fail("connect " + peer + ": " + std::strerror(errno));
  }
  return fd;
}

// A context is expensive to make, because the system has many roots. So each thread keeps those that it has used.
Result<std::shared_ptr<TlsContext>> client_context(const HttpTarget& target) {
  constexpr size_t kMostKept = 64;  // a bound, because authorities come and go with configurations
  thread_local std::map<std::pair<bool, std::string>, std::shared_ptr<TlsContext>> contexts;
  if (contexts.size() > kMostKept) contexts.clear();
  std::shared_ptr<TlsContext>& kept = contexts[{target.tls_verify, target.tls_ca_pem}];
  if (!kept) {
    auto made = TlsContext::client({{"http/1.1"}, target.tls_verify, target.tls_ca_pem});
    if (!made) return made.error();
    kept = *made;
  }
  return kept;
}

// The head for the wire, or why it cannot be sent.
Result<std::string> serialize_head(const HttpTarget& target, const HttpClientRequest& request, size_t body_bytes) {
  const bool spaced = request.target.find_first_of(" \t\r\n") != std::string::npos;
  if (!http1::is_token(request.method) || request.target.empty() || spaced || !http1::is_field_value(request.target)) {
    return fail(fmt::format("request {}: method or target is malformed", peer_name(target)));
  }
  std::string host = request.host;
  if (host.empty()) host = target.unix_path.empty() ? target.endpoint.to_string() : "localhost";
  if (!http1::is_field_value(host)) return fail(fmt::format("request {}: the host is malformed", peer_name(target)));
  std::string out =
      fmt::format("{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", request.method, request.target, host);
  for (const auto& [name, value] : request.headers) {
    if (!http1::is_token(name) || !http1::is_field_value(value)) {
      return fail(fmt::format("request {}: header '{}' is malformed", peer_name(target), name));
    }
    out.append(name).append(": ").append(value).append("\r\n");
  }
  // RFC 9110 §8.6: send a length even without content if the method expects content.
  const bool expects_content = request.method == "POST" || request.method == "PUT" || request.method == "PATCH";
  if (expects_content || body_bytes != 0) out += fmt::format("Content-Length: {}\r\n", body_bytes);
  return out.append("\r\n");
}

class Call final : public HttpCall, public IoHandler {
 public:
  using OnData = std::function<void(std::string_view)>;

  Call(EventLoop& loop, const HttpTarget& target, HttpClientRequest request, OnData on_data, HttpDone done)
      : loop_(loop),
        timer_(loop, [this] { on_timer(); }),
        peer_(peer_name(target)),
        timeout_ms_(request.timeout_ms),
        max_body_bytes_(request.max_body_bytes),
        to_head_(request.method == "HEAD"),
        on_data_(on_data ? std::make_shared<const OnData>(std::move(on_data)) : nullptr),
        done_(std::move(done)) {
    if (Result<void> begun = begin(target, std::move(request)); begun) {
      if (timeout_ms_ != 0) timer_.arm_after_ms(timeout_ms_);
    } else {
      failed_to_begin_ = begun.error();
      timer_.arm_after_ns(0);  // runs only after the caller holds the call
    }
  }

  ~Call() override {
    if (destroyed_ != nullptr) *destroyed_ = true;
    leave_loop();
  }
  bool failed_for_own_limit() const override { return own_limit_; }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

 private:
  enum class Step : uint8_t { connecting, handshaking, head, body };

  Result<void> begin(const HttpTarget& target, HttpClientRequest request);
  void on_io(uint32_t events) override;
  void on_timer();
  bool finish_connect();  // false, here and below: not there yet, or the call has ended
  bool handshake();
  void send_request();
  void receive();
  // Each of these takes what it can from in_. It returns false once the call has ended; then `this` may be gone.
  bool take_input(bool at_end);
  bool take_head(bool at_end);
  bool take_body(bool at_end);
  bool take_chunks(bool at_end);
  bool take_data(std::string_view bytes);
  bool streams() const { return on_data_ && response_.status / 100 == 2; }
  bool end(Result<HttpResponse> result);  // always false
  bool end_with(const std::string& doing, std::string_view why) {
    return end(fail(doing + " " + peer_ + ": " + std::string(why)));
  }
  void watch(uint32_t events);
  void leave_loop();

  EventLoop& loop_;
  Timer timer_;
  Transport transport_;
  const std::string peer_;
  const uint64_t timeout_ms_;
  const size_t max_body_bytes_;
  const bool to_head_;
  const std::shared_ptr<const OnData> on_data_;  // null: not a stream
  HttpDone done_;
  std::optional<Error> failed_to_begin_;
  bool own_limit_ = false;

  Step step_ = Step::connecting;
  bool watched_ = false;
  uint32_t interest_ = 0;
  bool* destroyed_ = nullptr;  // set while a callback runs
  OutBuffer out_;
  std::string send_error_;  // the peer may have answered before it closed
  std::string in_;
  uint32_t interim_ = 0;  // number of 1xx heads
  size_t scanned_ = 0;
  http1::Head head_;
  http1::ChunkedDecoder chunks_;
  http1::Framing framing_ = http1::Framing::none;
  uint64_t body_remaining_ = 0;
  HttpResponse response_;
};

Result<void> Call::begin(const HttpTarget& target, HttpClientRequest request) {
  const size_t body_bytes = request.shared_body ? request.shared_body->size() : request.body.size();
  Result<std::string> head = serialize_head(target, request, body_bytes);
  if (!head) return head.error();
  out_.take(std::move(*head));
  request.shared_body ? out_.append(std::move(request.shared_body)) : out_.take(std::move(request.body));
  Result<UniqueFd> fd = open_socket(target, own_limit_);
  if (!fd) return fd.error();
  if (timeout_ms_ == 0 && target.unix_path.empty()) end_when_peer_vanishes(fd->get(), 0);
  std::unique_ptr<TlsStream> tls;
  if (target.tls) {
    auto context = client_context(target);
    if (!context) return context.error();
    tls = std::make_unique<TlsStream>(*context, fd->get(), false, target.tls_server_name);
  }
  transport_ = Transport(std::move(*fd), std::move(tls));
  interest_ = EPOLLOUT;
  watched_ = loop_.add(transport_.fd(), interest_, this);
  own_limit_ = !watched_;
  if (!watched_) return fail("connect " + peer_ + ": the event loop refused the socket");
  return {};
}

void Call::on_timer() {
  if (failed_to_begin_) {
    end(Error(*failed_to_begin_));
    return;
  }
  const char* const doing = step_ == Step::connecting    ? "connect"
                            : step_ == Step::handshaking ? "TLS handshake with"
                            : out_.size() > 0            ? "write"
                                                         : "read";
  end_with(doing, fmt::format("timed out after {} ms", timeout_ms_));
}

void Call::on_io(uint32_t) {
  if (step_ == Step::connecting && !finish_connect()) return;
  if (step_ == Step::handshaking && !handshake()) return;
  send_request();
  receive();
}

bool Call::finish_connect() {
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(transport_.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return end_with("connect", std::strerror(error));
  step_ = Step::handshaking;
  return true;
}

bool Call::handshake() {
  const IoStatus status = transport_.handshake();
  if (status == IoStatus::ok) {
    step_ = Step::head;
    return true;
  }
  if (status == IoStatus::error) return end_with("TLS handshake with", transport_.last_error());
  if (status == IoStatus::closed) return end_with("TLS handshake with", "the peer closed the connection");
  watch(status == IoStatus::want_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
  return false;
}

void Call::send_request() {
  for (size_t sent = 0; out_.size() > 0;) {
    if (sent >= kHttpTurnSentBytes) return watch(EPOLLIN | EPOLLOUT);
    const std::string_view next = out_.front().substr(0, kHttpTurnSentBytes);
    const Transport::Io io = transport_.write(next.data(), next.size());
    if (io.status == IoStatus::ok) {
      out_.consume(io.bytes);
      sent += io.bytes;
    } else if (io.status == IoStatus::want_write || io.status == IoStatus::want_read) {
      return watch(io.status == IoStatus::want_write ? EPOLLIN | EPOLLOUT : EPOLLIN);
    } else {
      send_error_ = io.status == IoStatus::closed ? "the peer closed the connection" : transport_.last_error();
      out_ = {};
    }
  }
  watch(EPOLLIN);
}

void Call::receive() {
  for (int reads = 0;; ++reads) {
    // Bytes that TLS has already read are handled in the next round: the socket will not report them again.
    if (reads == kReadsPerWake) return loop_.call_again(transport_.fd());
    const size_t before = in_.size();
    in_.resize(before + kResponseReadBytes);
    const Transport::Io io = transport_.read(in_.data() + before, kResponseReadBytes);
    in_.resize(before + io.bytes);
    if (io.status == IoStatus::want_read || io.status == IoStatus::want_write) return;
    if (io.status == IoStatus::error) {
      if (!send_error_.empty()) {
        end_with("write", send_error_);
      } else {
        end_with("read", transport_.last_error());
      }
      return;
    }
    if (!take_input(io.status == IoStatus::closed)) return;
  }
}

bool Call::take_input(bool at_end) {
  if (step_ == Step::head && !take_head(at_end)) return false;
  return step_ == Step::head || take_body(at_end);
}

bool Call::take_head(bool at_end) {
  for (;;) {
    const http1::ParseResult parsed = http1::parse_response(in_, kResponseLimits, scanned_, to_head_, head_);
    if (parsed.status == http1::Status::error) return end_with("read", fault_info(parsed.fault).sentence);
    if (parsed.status == http1::Status::incomplete) {
      if (!at_end) return true;
      if (!send_error_.empty()) return end_with("write", send_error_);
      return end_with("read", "the peer closed the connection before it had answered");
    }
    scanned_ = 0;
    const bool interim = head_.status < 200;
    if (interim && ++interim_ > kInterimAnswers)
      return end_with("read", "the peer sent interim answers and no final one");
    if (head_.status == 101) return end_with("read", "the peer switched protocols unasked");
    if (!interim) {
      response_.status = head_.status;
      for (const http1::Field& field : head_) response_.headers.emplace_back(field.name, field.value);
      framing_ = head_.framing;
      body_remaining_ = head_.content_length;
      step_ = Step::body;
    }
    in_.erase(0, parsed.consumed);
    if (!interim) return true;
  }
}

bool Call::take_body(bool at_end) {
  if (framing_ == http1::Framing::chunked) return take_chunks(at_end);
  std::string taken;
  taken.swap(in_);
  std::string_view bytes = taken;
  if (framing_ != http1::Framing::until_close) {
    bytes = bytes.substr(0, static_cast<size_t>(std::min<uint64_t>(bytes.size(), body_remaining_)));
    body_remaining_ -= bytes.size();
  }
  if (!take_data(bytes)) return false;
  const bool whole = framing_ == http1::Framing::until_close ? at_end : body_remaining_ == 0;
  if (whole) return end(std::move(response_));
  return !at_end || end_with("read", "the peer closed the connection within the body");
}

bool Call::take_chunks(bool at_end) {
  std::string taken;
  taken.swap(in_);
  std::string_view rest = taken;
  for (;;) {
    const http1::ChunkedDecoder::Step step = chunks_.decode(rest);
    if (step.status == http1::Status::error) return end_with("read", fault_info(step.fault).sentence);
    if (!take_data(step.data)) return false;
    if (step.status == http1::Status::complete) return end(std::move(response_));
    if (step.consumed == 0) break;
    rest.remove_prefix(step.consumed);
  }
  return !at_end || end_with("read", "the peer closed the connection within the body");
}

bool Call::take_data(std::string_view bytes) {
  if (bytes.empty()) return true;
  if (!streams()) {
    if (response_.body.size() + bytes.size() > max_body_bytes_) {
      return end_with("read", fmt::format("the body has more than {} bytes", max_body_bytes_));
    }
    // A body that is not small grows once, to the length that the peer told.
    if (framing_ == http1::Framing::length && response_.body.size() > kHttpUnsentAnswerBytes) {
      const uint64_t whole = response_.body.size() + bytes.size() + body_remaining_;
      response_.body.reserve(static_cast<size_t>(std::min<uint64_t>(whole, max_body_bytes_)));
    }
    response_.body += bytes;
    return true;
  }
  bool destroyed = false;
  destroyed_ = &destroyed;
  const auto on_data = on_data_;
  (*on_data)(bytes);
  if (destroyed) return false;
  destroyed_ = nullptr;
  return true;
}

bool Call::end(Result<HttpResponse> result) {
  leave_loop();
  timer_.cancel();
  const HttpDone done = std::exchange(done_, nullptr);
  done(std::move(result));  // may destroy this object
  return false;
}

void Call::watch(uint32_t events) {
  if (events == interest_) return;
  interest_ = events;
  loop_.modify(transport_.fd(), events);
}

void Call::leave_loop() {
  if (watched_) loop_.remove(transport_.fd());
  watched_ = false;
  transport_.close();
}

}  // namespace

std::unique_ptr<HttpCall> http_call(EventLoop& loop, const HttpTarget& target, HttpClientRequest request,
                                    HttpDone done) {
  return std::make_unique<Call>(loop, target, std::move(request), nullptr, std::move(done));
}

std::unique_ptr<HttpCall> http_stream(EventLoop& loop, const HttpTarget& target, HttpClientRequest request,
                                      std::function<void(std::string_view)> on_data, HttpDone done) {
  return std::make_unique<Call>(loop, target, std::move(request), std::move(on_data), std::move(done));
}

Result<HttpResponse> http_fetch(const HttpTarget& target, HttpClientRequest request) {
  EventLoop loop;
  std::optional<Result<HttpResponse>> result;
  const auto call = http_call(loop, target, std::move(request), [&](Result<HttpResponse> response) {
    result = std::move(response);
    loop.stop();
  });
  loop.run();
  return std::move(*result);
}

}  // namespace tidegate
