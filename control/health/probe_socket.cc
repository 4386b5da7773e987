// SPDX-License-Identifier: Apache-2.0
// The probes that use a socket of their own: tcp, udp, dns, tls.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <array>
#include <map>
#include <tuple>
#include <vector>

#include "conf/byte_text.h"
#include "conf/model/probe.h"
#include "control/health/probe_attempt.h"
#include "control/health/probe_dns.h"
#include "control/health/probe_grpc.h"
#include "control/limits.h"
#include "core/crypto.h"
#include "core/tls.h"
#include "core/tls_peer.h"

namespace tidegate {

SocketAttempt::SocketAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done, int type, int protocol)
    : loop_(loop), done_(std::move(done)), timeout_ms_(target.timeout_ms), deadline_(loop, target.timeout_ms, [this] {
        finish({false, timeout_sentence(timeout_ms_), true, ProbeCause::timeout});
      }) {
  sockaddr_storage address{};
  const socklen_t length = target.endpoint.to_sockaddr(address);
  fd_.reset(::socket(address.ss_family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol));
  if (!fd_ || is_reserved_file(fd_.get())) {
    const int error = fd_ ? EMFILE : errno;
    fd_.reset();
    const bool may_not = error == EACCES || error == EPERM;
    finish_later({false, fmt::format("no socket: {}", std::strerror(error)), !may_not && !is_own_limit(error)});
    return;
  }
  if (type == SOCK_STREAM) {
    const linger reset_on_close{1, 0};
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &reset_on_close, sizeof reset_on_close);
    // See core/http_client.cc: what follows a handshake of TLS would wait for an acknowledgement.
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  }
  if (::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 && errno != EINPROGRESS) {
    finish_later({false, connect_sentence(errno), !is_own_limit(errno), cause_of_error(errno)});
    return;
  }
  deadline_.start();
  wait_for(EPOLLOUT);
}

void SocketAttempt::wait_for(uint32_t events) {
  if (events_ == events) return;
  unwatch();
  loop_.add(fd_.get(), events, this);
  events_ = events;
}

void SocketAttempt::unwatch() {
  if (events_ != 0) loop_.remove(fd_.get());
  events_ = 0;
}

void SocketAttempt::on_io(uint32_t) {
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return finish({false, connect_sentence(error), true, cause_of_error(error)});
  on_ready();
}

void SocketAttempt::finish(ProbeResult result) {
  unwatch();
  fd_.reset();
  deadline_.cancel();
  done_(std::move(result));
}

// The owner does not hold this attempt yet. So a timer of the attempt answers.
void SocketAttempt::finish_later(ProbeResult result) {
  at_once_ = std::make_unique<Timer>(loop_, [this, result = std::move(result)] { finish(result); });
  at_once_->arm_after_ns(0);
}

Result<std::shared_ptr<TlsContext>> probe_tls_context(const ProbeTarget& target) {
  const bool is_grpc = target.type == ProbeType::grpc;
  using Key = std::tuple<bool, bool, std::string>;
  thread_local std::map<Key, std::shared_ptr<TlsContext>> contexts;
  if (contexts.size() >= kProbeTlsContexts) contexts.clear();
  std::shared_ptr<TlsContext>& kept = contexts[Key(is_grpc, target.tls_verify, target.tls_ca_pem)];
  if (!kept) {
    auto made = TlsContext::client(
        {is_grpc ? std::vector<std::string>{"h2"} : std::vector<std::string>{}, target.tls_verify, target.tls_ca_pem});
    if (!made) return made.error();
    kept = *made;
  }
  return kept;
}

namespace {

std::string lacks(const std::string& expected) { return fmt::format("the answer lacks '{}'", text_of_bytes(expected)); }

// The backend is up if the connection opens and, with `expect`, that text comes. The connection is ended by a reset, so
// that the backend does not wait for a request.
class TcpAttempt final : public SocketAttempt {
 public:
  TcpAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : SocketAttempt(loop, target, std::move(done), SOCK_STREAM), to_send_(target.send), expect_(target.expect) {}

 private:
  void on_ready() override {
    while (!to_send_.empty()) {
      const ssize_t sent = ::send(fd(), to_send_.data(), to_send_.size(), MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) return wait_for(EPOLLOUT);
      if (sent < 0) return finish({false, fmt::format("send: {}", std::strerror(errno))});
      to_send_.erase(0, static_cast<size_t>(sent));
    }
    if (expect_.empty()) return finish({true, ""});
    while (true) {
      std::array<char, 1'024> buffer;
      const ssize_t got = ::recv(fd(), buffer.data(), buffer.size(), 0);
      if (got < 0 && errno == EAGAIN) return wait_for(EPOLLIN);
      if (got < 0) return finish({false, fmt::format("receive: {}", std::strerror(errno))});
      if (got == 0) {
        return finish({false, lacks(expect_) + ", and the connection is closed", true, ProbeCause::answer});
      }
      answer_.append(buffer.data(), static_cast<size_t>(got));
      if (answer_.find(expect_) != std::string::npos) return finish({true, ""});
      if (answer_.size() >= kProbeAnswerBytes) return finish({false, lacks(expect_), true, ProbeCause::answer});
    }
  }

  std::string to_send_, expect_, answer_;
};

// For udp and dns. The backend is up if it answers as expected. Without an answer, the deadline ends the attempt.
class DatagramAttempt final : public SocketAttempt {
 public:
  DatagramAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : SocketAttempt(loop, target, std::move(done), SOCK_DGRAM), target_(target) {
    const std::string random = random_bytes(2);
    id_ = static_cast<uint16_t>(static_cast<uint8_t>(random[0]) << 8 | static_cast<uint8_t>(random[1]));
  }

 private:
  void on_ready() override {
    if (!sent_) {
      const bool is_dns = target_.type == ProbeType::dns;
      const std::string message = is_dns ? dns_probe_query(id_, target_.dns_name, target_.dns_type) : target_.send;
      if (::send(fd(), message.data(), message.size(), MSG_NOSIGNAL) < 0) {
        return finish({false, fmt::format("send: {}", std::strerror(errno))});
      }
      sent_ = true;
      return wait_for(EPOLLIN);
    }
    std::array<char, kProbeAnswerBytes> buffer;
    const ssize_t got = ::recv(fd(), buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got < 0) return finish({false, connect_sentence(errno), true, cause_of_error(errno)});
    const std::optional<std::string> fault = fault_of({buffer.data(), static_cast<size_t>(got)});
    if (fault) finish({fault->empty(), *fault, true, ProbeCause::answer});
  }

  std::optional<std::string> fault_of(std::string_view answer) const {
    if (target_.type == ProbeType::dns) return dns_probe_fault(answer, id_, target_.dns_rcode);
    return answer.find(target_.expect) != std::string_view::npos ? std::string() : lacks(target_.expect);
  }

  const ProbeTarget target_;
  uint16_t id_ = 0;
  bool sent_ = false;
};

// The backend is up if the handshake succeeds and the certificate is valid for long enough.
class TlsAttempt final : public SocketAttempt {
 public:
  TlsAttempt(EventLoop& loop, const ProbeTarget& target, ProbeDone done)
      : SocketAttempt(loop, target, std::move(done), SOCK_STREAM), target_(target) {}

 private:
  void on_ready() override {
    if (!stream_) {
      const auto context = probe_tls_context(target_);
      if (!context) return finish({false, context.error().message, false});
      const std::string name = target_.host.empty() ? target_.endpoint.address.to_string() : target_.host;
      stream_ = std::make_unique<TlsStream>(*context, fd(), false, name);
    }
    switch (stream_->handshake()) {
      case TlsStatus::want_read:
        return wait_for(EPOLLIN);
      case TlsStatus::want_write:
        return wait_for(EPOLLOUT);
      case TlsStatus::ok:
        return judge();
      case TlsStatus::closed:
        return give_up("the connection was closed in the handshake");
      case TlsStatus::error:
        return give_up("tls: " + stream_->last_error());
    }
  }
  void judge() {
    const std::optional<int64_t> end_s = peer_not_after_s(*stream_);
    if (!end_s) return give_up("the backend showed no certificate");
    const int64_t left_s = *end_s - static_cast<int64_t>(realtime_ns() / kNsPerS);
    constexpr int64_t kDayS = 86'400;
    if (left_s < 0) return give_up("the certificate has ended");
    if (left_s < target_.tls_days * kDayS) {
      return give_up(fmt::format("the certificate ends in {} days, {} are expected", left_s / kDayS, target_.tls_days));
    }
    stream_.reset();
    finish({true, ""});
  }
  void give_up(std::string why) {
    stream_.reset();
    finish({false, std::move(why), true, ProbeCause::certificate});
  }

  const ProbeTarget target_;
  std::unique_ptr<TlsStream> stream_;
};

}  // namespace

std::unique_ptr<ProbeAttempt> start_socket_probe(EventLoop& loop, const ProbeTarget& target, ProbeDone done) {
  if (target.type == ProbeType::grpc) return start_grpc_probe(loop, target, std::move(done));
  if (target.type == ProbeType::tls) return std::make_unique<TlsAttempt>(loop, target, std::move(done));
  if (target.type == ProbeType::tcp) return std::make_unique<TcpAttempt>(loop, target, std::move(done));
  return std::make_unique<DatagramAttempt>(loop, target, std::move(done));
}

}  // namespace tidegate
