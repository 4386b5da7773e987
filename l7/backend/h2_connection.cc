// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/h2_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "core/clock.h"
#include "l7/backend/connections.h"
#include "l7/backend/h1_connection.h"
#include "l7/h2/session_memory.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kGatheredBytes = kBlockBytes;  // bytes of frames that are sent in one write
constexpr size_t kConnectionWindowBytes = kBackendHttp2Streams * kBackendHttp2WindowBytes;

}  // namespace

BackendH2Connection::BackendH2Connection(std::unique_ptr<BackendSocket> socket, BackendConnections& home,
                                         BlockPool& blocks, uint32_t backend, Wish wish)
    : socket_(std::move(socket)),
      home_(home),
      blocks_(blocks),
      backend_(backend),
      wish_(wish),
      made_ns_(socket_->loop().now_ns()),
      keepalive_(socket_->loop(), [this] { home_.drop_http2(this); }) {
  socket_->set_owner(*this);
}

BackendH2Connection::~BackendH2Connection() {
  for (BackendH2Stream* stream : streams_) stream->connection_ = nullptr;
  home_.memory().give_back(grown_);
}

bool BackendH2Connection::has_room(bool shared_early) const {
  if (draining_ || closed_ || socket_ == nullptr || socket_->failure() != Failure::none) return false;
  if (!session_) return shared_early && streams_.size() < kBackendHttp2Streams;
  return streams_.size() < std::min(kBackendHttp2Streams, session_->peer_max_streams());
}

std::unique_ptr<BackendStream> BackendH2Connection::open_stream() {
  std::unique_ptr<BackendH2Stream> stream(new (home_.session_blocks()) BackendH2Stream(*this, blocks_));
  if (socket_->failure() != Failure::none) stream->fail_with(socket_->failure(), socket_->failure_detail());
  stream->place_ = streams_.size();
  streams_.push_back(stream.get());
  keepalive_.cancel();
  return stream;
}

bool BackendH2Connection::looks_alive() {
  if (!session_) return true;  // the connection is being made
  const uint64_t now_ns = socket_->loop().now_ns();
  if (alive_at_ns_ == now_ns) return true;
  char byte;
  const ssize_t got = ::recv(socket_->transport().fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  const bool alive = got > 0 || (got < 0 && errno == EAGAIN);
  if (alive) alive_at_ns_ = now_ns;
  return alive;
}

// --- the connection

void BackendH2Connection::on_socket() {
  if (closed_) return;
  if (socket_->failure() != Failure::none) {
    for (BackendH2Stream* stream : streams_) fail_stream(*stream, socket_->failure(), socket_->failure_detail());
    return home_.drop_http2(this);
  }
  if (!socket_->is_open()) return;
  if (!session_) on_connected();
  if (closed_ || socket_ == nullptr) return;
  socket_->transport().flush();
  const bool alive = receive() && !socket_->transport().broken();
  if (closed_) return;
  if (!alive) return home_.drop_http2(this);
  pump();
}

// Streams whose request can be sent elsewhere leave. For the others the kernel goes on trying.
void BackendH2Connection::on_acceptance() {
  if (closed_) return;
  if (socket_->seen_acknowledged()) return home_.note_acknowledged(backend_);
  if (socket_->acceptance() == Acceptance::unacknowledged) draining_ = true;
  for (BackendH2Stream* stream : streams_) wake(*stream);
  call_users();
}

// TLS has chosen the protocol by now.
void BackendH2Connection::on_connected() {
  const TlsStream* const tls = socket_->transport().tls();
  const bool chosen = tls == nullptr || tls->alpn() == "h2";
  home_.note_protocol(backend_, chosen);
  if (chosen) {
    begin_session();
    for (BackendH2Stream* stream : streams_) wake(*stream);
    return;
  }
  if (wish_ == Wish::prefer) return hand_over_to_http1();
  for (BackendH2Stream* stream : streams_) {
    fail_stream(*stream, Failure::tls_failed, "the backend did not choose HTTP/2 (ALPN)");
  }
  home_.drop_http2(this);
}

void BackendH2Connection::begin_session() {
  Http2Session::User& self = *this;
  session_ = std::make_unique<Http2Session>(Http2Session::Role::client, self,
                                            std::initializer_list<Http2Session::Setting>{
                                                {SettingsId::enable_push, 0},
                                                {SettingsId::no_rfc7540_priorities, 1},  // RFC 9218 §2.1: we send none
                                                {SettingsId::initial_window_size, kBackendHttp2WindowBytes},
                                                {SettingsId::max_header_list_size, kBackendHttp2HeaderBytes},
                                            },
                                            kConnectionWindowBytes);
}

void BackendH2Connection::hand_over_to_http1() {
  std::unique_ptr<BackendStream> next = std::make_unique<BackendH1Connection>(std::move(socket_), home_, backend_);
  for (BackendH2Stream* stream : streams_) {
    stream->superseded_ = true;
    if (next) stream->successor_ = std::move(next);
    wake(*stream);
  }
  draining_ = true;
  home_.forget_http2(this);
  call_users();
}

// Reads only while our answers to it can be sent.
bool BackendH2Connection::receive() {
  ProxyTransport& transport = socket_->transport();
  InBuffer& in = socket_->in();
  while (transport.drained()) {
    if (in.empty()) {
      const ProxyTransport::Status status = transport.fill(in);
      if (status == ProxyTransport::Status::blocked) break;
      if (status != ProxyTransport::Status::ok) return false;
    }
    const Http2Session::Stop stop = session_->receive(in.bytes());
    if (stop != Http2Session::Stop::none) return false;
    in.consume(in.bytes().size());
    send_frames();
  }
  in.release_if_empty();
  return !session_->over();
}

void BackendH2Connection::call_at_round_end() { home_.call_at_round_end(*this); }

void BackendH2Connection::on_round_end() {
  if (session_) pump();
}

void BackendH2Connection::pump() {
  pumping_ = true;
  for (int round = 0; round < kHttp2RoundsPerTurn; ++round) {
    call_users();
    if (closed_ || !session_) break;
    send_frames();
    if (awake_.empty() || socket_->transport().broken()) break;
  }
  pumping_ = false;
  if (closed_ || !session_) return;
  const bool over = draining_ && streams_.empty();
  if (over || socket_->transport().broken()) return home_.drop_http2(this);
  if (!awake_.empty()) send_at_round_end();  // other connections have their turn
}

void BackendH2Connection::send_frames() {
  ProxyTransport& transport = socket_->transport();
  for (;;) {
    session_->send(transport, kGatheredBytes);
    const bool more = transport.waiting_bytes() >= kGatheredBytes;
    transport.flush();
    if (!more || !transport.drained()) return;
  }
}

// Calling one user may end other streams, which then leave the list.
void BackendH2Connection::call_users() {
  while (BackendH2Stream* const stream = awake_.take()) {
    if (stream->user_ != nullptr) stream->user_->on_backend();
  }
}

void BackendH2Connection::close(Failure failure) {
  if (closed_) return;
  if (socket_ == nullptr) {  // the socket went to HTTP/1; the waiting streams know
    closed_ = true;
    return;
  }
  for (BackendH2Stream* stream : streams_) {
    const bool whole = stream->head_ended_ && stream->body_ended_;
    stream->heard_ = stream->anything_received();
    stream->closed_ = true;
    if (!whole) fail_stream(*stream, stream->head_ended_ ? Failure::backend_truncated : failure);
  }
  closed_ = draining_ = true;
  keepalive_.cancel();
  socket_->close();
  for (BackendH2Stream* stream : streams_) {
    if (session_) session_->forget(*stream);
  }
  session_.reset();
  call_users();
}

// --- streams

void BackendH2Connection::leave(BackendH2Stream& stream, uint64_t keepalive_timeout_ms) {
  const bool whole = stream.head_ended_ && stream.body_ended_;
  if (session_ && stream.id() > 0) {
    if (stream.tunnel_) end_tunnel_in_order(stream);
    session_->leave(stream);  // a head that waits there borrows its fields from the arena
    session_->take_of_connection(stream.in_.bytes());
    // The exchange timed out, and nothing at all came from the backend. The next request must not use this connection.
    const uint64_t waited_ns = socket_->loop().now_ns() - stream.begun_ns_;
    if (!whole && !stream.anything_received() && waited_ns >= kBackendHttp2SilentMs * kNsPerMs) draining_ = true;
    send_at_round_end();
  }
  forget(stream);
  if (closed_ || socket_ == nullptr) return;
  if (!session_ && socket_->loop().now_ns() - made_ns_ >= kBackendHttp2SilentMs * kNsPerMs) draining_ = true;
  if (streams_.empty() && (draining_ || !session_)) return home_.drop_http2(this);
  if (streams_.empty()) {
    narrow();
    keepalive_.arm_after_ms(keepalive_timeout_ms);
  }
  home_.note_room(backend_);
}

void BackendH2Connection::forget(BackendH2Stream& stream) {
  awake_.remove(stream);
  streams_[stream.place_] = streams_.back();
  streams_[stream.place_]->place_ = stream.place_;
  streams_.pop_back();
  grown_used_ -= stream.window_.bytes() - kBackendHttp2WindowBytes;
}

// The growth of streams that have ended is used for streams that grow now.
void BackendH2Connection::widen(BackendH2Stream& stream) {
  StreamWindow& window = stream.window_;
  const size_t wider = std::min<size_t>(2 * window.bytes(), kBackendHttp2WindowMostBytes);
  const size_t more = wider - window.bytes();
  window.set(window.bytes());
  if (more == 0) return;
  if (grown_used_ + more > grown_) {
    const size_t missing = grown_used_ + more - grown_;
    if (!home_.memory().take(missing)) return;
    grown_ += missing;
    session_->set_connection_window(kConnectionWindowBytes + grown_);
  }
  grown_used_ += more;
  window.set(wider);
  session_->set_window(stream, wider);
}

// An unused connection holds nothing from the budget.
void BackendH2Connection::narrow() {
  if (grown_ == 0 || !session_) return;
  home_.memory().give_back(std::exchange(grown_, 0));
  session_->set_connection_window(kConnectionWindowBytes);
}

void BackendH2Connection::end_tunnel_in_order(BackendH2Stream& stream) {
  if (stream.closed_ || !stream.body_ended_ || stream.out_.bytes() > 0) return;
  if (!stream.request_ended_) stream.end_content();
  send_frames();  // a reset would come before them
}

void BackendH2Connection::fail_stream(BackendH2Stream& stream, Failure failure, std::string_view detail) {
  stream.fail_with(failure, detail);
  wake(stream);
}

}  // namespace tidegate::l7
