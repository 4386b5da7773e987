// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/h1_connection.h"

#include <netinet/tcp.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "core/limits.h"
#include "core/open_files.h"
#include "l7/backend/connections.h"
#include "l7/wire/vanished.h"

namespace tidegate::l7 {
namespace {

constexpr http1::Limits kResponseLimits{.head_bytes = kBlockBytes - 1024, .fields = http1::kMaxFields};

}  // namespace

BackendConnection::BackendConnection(EventLoop& loop, BlockPool& blocks, BackendConnections& home, uint32_t backend,
                                     const BackendPeer& peer)
    : loop_(loop),
      home_(home),
      backend_(backend),
      endpoint_(peer.endpoint),
      tls_(peer.tls),
      server_name_(peer.server_name),
      transport_(loop, blocks),
      in_(blocks),
      keepalive_(loop, [this] { home_.drop_idle(this); }) {}

void BackendConnection::connect(UniqueFd fd, uint64_t idle_timeout_ms) {
  if (!fd) return fail_with(Failure::out_of_sockets);
  sockaddr_storage address{};
  const socklen_t length = endpoint_.to_sockaddr(address);
  const int one = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  end_when_peer_vanishes(fd.get(), idle_timeout_ms);
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 && errno != EINPROGRESS) {
    const int error = errno;
    return fail_with(is_own_limit(error) ? Failure::out_of_sockets : Failure::connect_failed, std::strerror(error));
  }
  if (!transport_.open(std::move(fd), this)) return fail_with(Failure::out_of_sockets);
  if (tls_) transport_.start_tls(tls_, false, server_name_.empty() ? endpoint_.address.to_string() : server_name_);
}

void BackendConnection::begin(User& user, std::string_view head, bool chunked_body, bool to_head) {
  user_ = &user;
  keepalive_.cancel();
  if (state_ == State::idle) state_ = State::open;
  ++exchanges_;
  read_before_ = transport_.bytes_read();
  scanned_ = head_bytes_ = taken_ = 0;
  interim_ = 0;
  to_head_ = to_head;
  chunked_request_ = chunked_body;
  request_ended_ = head_ready_ = response_ended_ = false;
  chunks_ = http1::ChunkedDecoder(kResponseLimits);
  if (failure_ == Failure::none) transport_.queue(head);
}

bool BackendConnection::ready_for_piece() {
  if (!connected()) return false;
  // What was only gathered is no reason to wait: no event would ever end that.
  if (!transport_.takes_more()) transport_.flush();
  return transport_.takes_more();
}

void BackendConnection::send_piece(std::string_view piece) {
  if (!chunked_request_) {
    transport_.send(piece);
    return;
  }
  char header[24];
  transport_.queue({header, http1::encode_chunk_header(piece.size(), header)});
  transport_.send(piece);
  transport_.queue("\r\n");
}

void BackendConnection::end_request() {
  if (chunked_request_) transport_.queue("0\r\n\r\n");
  request_ended_ = true;
}

void BackendConnection::end_tunnel() {
  tunnel_ending_ = true;
  flush();
}

void BackendConnection::flush() {
  if (!connected()) return;
  transport_.flush();
  if (!tunnel_ending_ || !transport_.drained()) return;
  tunnel_ending_ = false;
  transport_.shut_write();
}

void BackendConnection::on_io(uint32_t events) {
  transport_.note(events);
  switch (state_) {
    case State::idle:
      // Between exchanges a backend has nothing to say but goodbye. What its last exchange left for this round is no
      // word of the backend's.
      if (!looks_alive()) home_.drop_idle(this);
      return;
    case State::connecting:
      on_connecting();
      break;
    case State::handshaking:
      on_handshaking();
      break;
    case State::open:
      flush();
      if (!head_ready_ && head_bytes_ == 0) read_head();
      break;
    case State::dead:
      return;
  }
  if (user_ != nullptr) user_->on_backend();
}

void BackendConnection::on_connecting() {
  int error = 0;
  socklen_t length = sizeof error;
  ::getsockopt(transport_.fd(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) return fail_with(Failure::connect_failed, std::strerror(error));
  if (transport_.tls() != nullptr) {
    state_ = State::handshaking;
    return on_handshaking();
  }
  on_connected();
}

void BackendConnection::on_handshaking() {
  switch (transport_.handshake()) {
    case Transport::Status::ok:
      return on_connected();
    case Transport::Status::blocked:
      return;
    case Transport::Status::closed:
    case Transport::Status::failed:
      break;
  }
  const TlsStream& tls = *transport_.tls();
  if (!tls.refused_certificate().empty()) return fail_with(Failure::certificate_refused, tls.refused_certificate());
  fail_with(Failure::tls_failed, tls.last_error());
}

void BackendConnection::on_connected() {
  state_ = State::open;
  transport_.flush();
}

void BackendConnection::read_head() {
  while (failure_ == Failure::none && fill()) {
    if (parse_head()) return;
  }
}

// True when nothing more is to be read for the head: it is there, or it is broken.
bool BackendConnection::parse_head() {
  for (;;) {
    const http1::ParseResult parsed = http1::parse_response(in_.bytes(), kResponseLimits, scanned_, to_head_, head_);
    if (parsed.status == http1::Status::incomplete) {
      if (in_.bytes().size() < kResponseLimits.head_bytes) return false;
      fail_with(Failure::response_too_large, http1::fault_info(http1::Fault::head_too_large).name);
      return true;
    }
    if (parsed.status == http1::Status::error) {
      const bool too_large =
          parsed.fault == http1::Fault::head_too_large || parsed.fault == http1::Fault::too_many_fields;
      fail_with(too_large ? Failure::response_too_large : Failure::bad_response, http1::fault_info(parsed.fault).name);
      return true;
    }
    if (head_.status >= 200 || head_.status == 101) {
      head_bytes_ = parsed.consumed;
      head_ready_ = true;
      return true;
    }
    if (++interim_ > kInterimAnswers) {
      fail_with(Failure::too_many_interim);
      return true;
    }
    if (head_.status != 100 && user_ != nullptr) user_->on_interim(head_);
    in_.consume(parsed.consumed);
    scanned_ = 0;
    if (in_.empty()) return false;
  }
}

void BackendConnection::accept_head() {
  head_ready_ = false;
  in_.consume(head_bytes_);
  remaining_ = head_.framing == http1::Framing::length ? head_.content_length : 0;
  if (head_.status == 101) head_.framing = http1::Framing::until_close;
  if (to_head_ || head_.framing == http1::Framing::none ||
      (head_.framing == http1::Framing::length && head_.content_length == 0)) {
    response_ended_ = true;
  }
}

std::string_view BackendConnection::next_piece() {
  in_.consume(taken_);
  taken_ = 0;
  while (!response_ended_ && failure_ == Failure::none) {
    if (in_.empty() && !fill()) break;
    if (head_.framing == http1::Framing::length) {
      const std::string_view piece = in_.bytes().substr(0, std::min<uint64_t>(remaining_, kBlockBytes));
      taken_ = piece.size();
      remaining_ -= piece.size();
      response_ended_ = remaining_ == 0;
      return piece;
    }
    if (head_.framing == http1::Framing::until_close) {
      taken_ = in_.bytes().size();
      return in_.bytes();
    }
    const http1::ChunkedDecoder::Step step = chunks_.decode(in_.bytes());
    if (step.status == http1::Status::error) {
      fail_with(Failure::bad_response, http1::fault_info(step.fault).name);
      break;
    }
    response_ended_ = step.status == http1::Status::complete;
    if (!step.data.empty()) {
      taken_ = step.consumed;
      return step.data;
    }
    in_.consume(step.consumed);
  }
  return {};
}

bool BackendConnection::fill() {
  switch (transport_.fill(in_)) {
    case Transport::Status::ok:
      return true;
    case Transport::Status::blocked:
      return false;
    case Transport::Status::closed:
      if (head_bytes_ != 0 && !head_ready_ && head_.framing == http1::Framing::until_close) {
        response_ended_ = true;
        return false;
      }
      [[fallthrough]];
    case Transport::Status::failed:
      break;
  }
  fail_with(head_bytes_ != 0 ? Failure::backend_truncated : Failure::backend_closed);
  return false;
}

void BackendConnection::fail_with(Failure failure, std::string_view detail) {
  if (failure_ != Failure::none) return;
  failure_ = failure;
  failure_detail_ = detail;
  state_ = State::dead;
}

bool BackendConnection::reusable() const {
  return state_ == State::open && failure_ == Failure::none && response_ended_ && request_ended_ && head_.keep_alive &&
         head_.framing != http1::Framing::until_close && head_.status != 101 && taken_ == in_.bytes().size() &&
         transport_.drained() && !transport_.broken() && !transport_.peer_hung_up();
}

bool BackendConnection::looks_alive() const {
  char byte;
  const ssize_t got = ::recv(transport_.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got < 0 && errno == EAGAIN;
}

}  // namespace tidegate::l7
