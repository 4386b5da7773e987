// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/socket.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "core/open_files.h"
#include "core/vanished.h"
#include "l7/limits.h"

namespace tidegate::l7 {

std::optional<IpAddress> BackendPeer::local_address() const {
  if (address.is_unix()) return std::nullopt;
  for (const IpAddress& each : local) {
    if (each.family == address.endpoint.address.family) return each;
  }
  return std::nullopt;
}

BackendSocket::BackendSocket(EventLoop& loop, BlockPool& blocks, const BackendPeer& peer)
    : loop_(loop),
      address_(peer.address),
      tls_(peer.tls),
      server_name_(peer.server_name),
      preface_(peer.preface),
      local_(peer.local_address()),
      http1_alone_(peer.http1_alone),
      transport_(loop, blocks),
      in_(blocks),
      acceptance_check_(loop, [this] { check_acceptance(); }) {}

void BackendSocket::connect(UniqueFd fd, uint64_t idle_timeout_ms) {
  if (!fd) return fail_with(Failure::out_of_sockets);
  sockaddr_storage address{};
  const socklen_t length = address_.to_sockaddr(address);
  if (!address_.is_unix()) {
    const int one = 1;
    ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    end_when_peer_vanishes(fd.get(), idle_timeout_ms);
  }
  if (local_ && !bind_local(fd.get())) {
    return fail_with(Failure::connect_failed, "from " + local_->to_string() + ": " + std::strerror(errno));
  }
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    // A unix socket says at once that its queue is full (unix(7)).
    if (error == EAGAIN && address_.is_unix()) return fail_with(Failure::not_accepted, std::strerror(error));
    return fail_with(is_own_limit(error) ? Failure::out_of_sockets : Failure::connect_failed, std::strerror(error));
  }
  if (!transport_.open(std::move(fd), this)) return fail_with(Failure::out_of_sockets);
  if (!address_.is_unix()) acceptance_check_.arm_after_ms(kAcceptanceCheckMs);
  if (!tls_) return;
  transport_.start_tls(tls_, false, server_name_.empty() ? address_.host() : server_name_);
  if (http1_alone_) transport_.offer("http/1.1");
}

// bind() chooses no port: connect() does. So a local address does not reduce the number of possible connections.
bool BackendSocket::bind_local(int fd) {
  const int one = 1;
  ::setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
  sockaddr_storage own{};
  const socklen_t length = Endpoint{*local_, 0}.to_sockaddr(own);
  return ::bind(fd, reinterpret_cast<sockaddr*>(&own), length) == 0;
}

void BackendSocket::close() {
  stage_ = Stage::closed;
  acceptance_check_.cancel();
  // A reset discards the bytes that the kernel would still send.
  if (acceptance() == Acceptance::unacknowledged) transport_.reset_on_close();
  transport_.close();
}

// Checked at a time when most connections have their answer already, or have ended.
void BackendSocket::check_acceptance() {
  if (stage_ == Stage::closed) return;
  if (stage_ == Stage::connecting) {
    acceptance_ = Acceptance::unanswered;
  } else {
    // If a connection is established late, its first bytes are sent late too.
    const bool time_was_given = loop_.now_ns() - tcp_connected_ns_ >= kAcceptanceCheckMs * kNsPerMs * 4 / 5;
    const ProxyTransport::FirstBytes first = transport_.first_bytes();
    acceptance_ = first.acknowledged                                         ? Acceptance::acknowledged
                  : first.in_flight && first.repeated >= 2 && time_was_given ? Acceptance::unacknowledged
                                                                             : Acceptance::unknown;
  }
  if (acceptance_ != Acceptance::acknowledged) acceptance_check_.arm_after_ms(kAcceptanceCheckMs / 3);
  if (acceptance_ != Acceptance::unknown) owner_->on_acceptance();
}

void BackendSocket::on_io(uint32_t events) {
  transport_.note(events);
  switch (stage_) {
    case Stage::connecting:
      on_connecting();
      break;
    case Stage::handshaking:
      on_handshaking();
      break;
    case Stage::open:
      break;
    case Stage::closed:
      return;
  }
  owner_->on_socket();
}

void BackendSocket::on_connecting() {
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(transport_.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return fail_with(Failure::connect_failed, std::strerror(error));
  tcp_connected_ns_ = loop_.now_ns();
  // The send buffer is empty, so one send() takes all of the few bytes of the preface.
  if (!preface_.empty() && ::send(transport_.fd(), preface_.data(), preface_.size(), MSG_NOSIGNAL) !=
                               static_cast<ssize_t>(preface_.size())) {
    return fail_with(Failure::connect_failed, std::strerror(errno));
  }
  if (transport_.tls() != nullptr) {
    stage_ = Stage::handshaking;
    return on_handshaking();
  }
  stage_ = Stage::open;
}

void BackendSocket::on_handshaking() {
  switch (transport_.handshake()) {
    case ProxyTransport::Status::ok:
      stage_ = Stage::open;
      return;
    case ProxyTransport::Status::blocked:
      return;
    case ProxyTransport::Status::closed:
    case ProxyTransport::Status::failed:
      break;
  }
  const TlsStream& tls = *transport_.tls();
  if (!tls.refused_certificate().empty()) return fail_with(Failure::certificate_refused, tls.refused_certificate());
  fail_with(Failure::tls_failed, tls.last_error());
}

bool BackendSocket::looks_alive() const {
  char byte;
  const ssize_t got = ::recv(transport_.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && errno == EAGAIN;
}

void BackendSocket::fail_with(Failure failure, std::string_view detail) {
  if (failure_ != Failure::none) return;
  failure_ = failure;
  failure_detail_ = detail;
  stage_ = Stage::closed;
}

}  // namespace tidegate::l7
