// SPDX-License-Identifier: Apache-2.0
#include "control/health/probe.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "core/fd.h"
#include "core/http_client.h"
#include "core/open_files.h"

namespace tidegate {

namespace {

constexpr size_t kMaxProbeBodyBytes = 1 << 20;

std::string connect_sentence(int error) {
  if (error == ECONNREFUSED) return "connect refused";
  if (error == ECONNRESET) return "connection reset";
  return fmt::format("connect: {}", std::strerror(error));
}

// If a deadline comes later than this, the process did not run, or had no time.
constexpr uint64_t kPausedNs = 20 * kNsPerMs;
constexpr int kMaxExtensions = 3;

// The deadline of an attempt. The backend is not charged with time in which this process did not run. So a deadline
// that comes late begins again, at most a few times.
class Deadline {
 public:
  Deadline(EventLoop& loop, uint64_t timeout_ms, std::function<void()> on_end)
      : loop_(loop), timeout_ns_(timeout_ms * kNsPerMs), on_end_(std::move(on_end)), timer_(loop, [this] { fire(); }) {}
  void start() {
    ends_ns_ = loop_.now_ns() + timeout_ns_;
    timer_.arm_at_ns(ends_ns_);
  }
  void cancel() { timer_.cancel(); }

 private:
  void fire() {
    if (loop_.now_ns() > ends_ns_ + kPausedNs && extensions_++ < kMaxExtensions) return start();
    on_end_();
  }
  EventLoop& loop_;
  const uint64_t timeout_ns_;
  const std::function<void()> on_end_;
  uint64_t ends_ns_ = 0;
  int extensions_ = 0;
  Timer timer_;
};

std::string timeout_sentence(uint64_t timeout_ms) { return fmt::format("nothing for {} ms", timeout_ms); }

// The backend is up if the handshake completes. The connection is reset at once, so the backend does not wait for a
// request.
class TcpAttempt final : public ProbeAttempt, private IoHandler {
 public:
  TcpAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : loop_(loop), done_(std::move(done)), timeout_ms_(target.timeout_ms), deadline_(loop, target.timeout_ms, [this] {
          finish({false, timeout_sentence(timeout_ms_)});
        }) {
    sockaddr_storage address{};
    const socklen_t length = target.endpoint.to_sockaddr(address);
    fd_.reset(::socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP));
    if (!fd_ || is_reserved_file(fd_.get())) {
      const int error = fd_ ? EMFILE : errno;
      fd_.reset();
      finish_later({false, fmt::format("no socket: {}", std::strerror(error)), !is_own_limit(error)});
      return;
    }
    const linger reset_on_close{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof reset_on_close);
    if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length) == 0) {
      finish_later({true, ""});
    } else if (errno != EINPROGRESS) {
      finish_later({false, connect_sentence(errno), !is_own_limit(errno)});
    } else {
      loop_.add(fd_.get(), EPOLLOUT, this);
      watched_ = true;
      deadline_.start();
    }
  }
  ~TcpAttempt() override { unwatch(); }

 private:
  void on_io(uint32_t) override {
    int error = 0;
    socklen_t length = sizeof error;
    ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
    finish(error == 0 ? ProbeResult{true, ""} : ProbeResult{false, connect_sentence(error)});
  }
  void unwatch() {
    if (watched_) loop_.remove(fd_.get());
    watched_ = false;
  }
  void finish(ProbeResult result) {
    unwatch();
    fd_.reset();
    deadline_.cancel();
    done_(std::move(result));
  }
  // The owner does not hold this attempt yet. So a timer answers, which dies with the attempt.
  void finish_later(ProbeResult result) {
    at_once_ = std::make_unique<Timer>(loop_, [this, result = std::move(result)] { finish(result); });
    at_once_->arm_after_ns(0);
  }

  EventLoop& loop_;
  ProbeDone done_;
  uint64_t timeout_ms_;
  UniqueFd fd_;
  Deadline deadline_;
  std::unique_ptr<Timer> at_once_;
  bool watched_ = false;
};

// The backend is up if the answer has the expected status.
class HttpAttempt final : public ProbeAttempt {
 public:
  HttpAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done) : done_(std::move(done)) {
    HttpTarget to;
    to.endpoint = target.endpoint;
    to.tls = target.type == ProbeType::https;
    to.tls_server_name = target.host.empty() ? target.endpoint.address.to_string() : target.host;
    to.tls_verify = target.tls_verify;
    to.tls_ca_pem = target.tls_ca_pem;
    HttpClientRequest request;
    request.target = target.path;
    request.host = target.host.empty() ? target.endpoint.to_string() : target.host;
    request.headers.emplace_back("User-Agent", "tidegate-probe");
    request.timeout_ms = target.timeout_ms;
    request.max_body_bytes = kMaxProbeBodyBytes;
    // This deadline gives the reason how long nothing came, whatever the HTTP client waited for.
    deadline_ = std::make_unique<Deadline>(loop, target.timeout_ms, [this, ms = target.timeout_ms] {
      call_.reset();
      done_({false, timeout_sentence(ms)});
    });
    deadline_->start();
    request.timeout_ms = 0;
    call_ = http_call(loop, to, std::move(request),
                      [this, expect = target.expect_status](const Result<HttpResponse>& response) {
                        deadline_->cancel();
                        ProbeResult result = check(response, expect);
                        result.looked = response || !call_->failed_for_own_limit();
                        done_(std::move(result));
                      });
  }

 private:
  static ProbeResult check(const Result<HttpResponse>& response, uint16_t expect_status) {
    if (!response) return {false, response.error().message};
    if (response->status != expect_status) {
      return {false, fmt::format("status {}, expected {}", response->status, expect_status)};
    }
    return {true, ""};
  }

  ProbeDone done_;
  std::unique_ptr<Deadline> deadline_;
  std::unique_ptr<HttpCall> call_;
};

}  // namespace

ProbeTarget probe_target(const Probe& probe, const Backend& backend) {
  ProbeTarget target;
  target.type = probe.type;
  if (!backend.addresses.empty()) target.endpoint.address = backend.addresses.front();
  target.endpoint.port = probe.port != 0 ? probe.port : backend.port;
  target.host = probe.host;
  target.path = probe.path;
  target.tls_verify = probe.tls_verify;
  if (probe.tls_ca.bytes) target.tls_ca_pem = *probe.tls_ca.bytes;
  target.expect_status = probe.expect_status;
  target.interval_ms = probe.interval_ms;
  target.timeout_ms = probe.timeout_ms;
  target.rise = probe.rise;
  target.fall = probe.fall;
  return target;
}

std::unique_ptr<ProbeAttempt> start_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  if (target.type == ProbeType::tcp) return std::make_unique<TcpAttempt>(loop, target, std::move(done));
  return std::make_unique<HttpAttempt>(loop, target, std::move(done));
}

}  // namespace tidegate
