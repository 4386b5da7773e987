// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/h2_connection.h"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "core/clock.h"
#include "l7/backend/connections.h"
#include "l7/backend/h1_connection.h"
#include "l7/h2/pairs.h"
#include "l7/h2/session_memory.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kGatheredBytes = kBlockBytes;  // bytes of frames that are sent in one write
constexpr int32_t kConnectionWindowBytes = kBackendHttp2Streams * kBackendHttp2WindowBytes;

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
  const uint32_t allowed = nghttp2_session_get_remote_settings(session_.get(), NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return streams_.size() < std::min<size_t>(kBackendHttp2Streams, allowed);
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
  nghttp2_option* options = nullptr;
  nghttp2_option_new(&options);
  nghttp2_option_set_no_auto_window_update(options, 1);
  nghttp2_option_set_no_closed_streams(options, 1);  // they would be kept only for priorities
  nghttp2_option_set_max_continuations(options, kHttp2Continuations);
  nghttp2_option_set_max_send_header_block_length(options, 4 * kBlockBytes);
  nghttp2_session* session = nullptr;
  nghttp2_mem memory = session_memory(home_.session_blocks());
  nghttp2_session_client_new3(&session, callbacks(), this, options, &memory);
  nghttp2_option_del(options);
  session_.reset(session);
  const std::array<nghttp2_settings_entry, 4> settings{{
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
      // RFC 9218 §2.1: we send no priorities of RFC 7540, and keep no tree of them.
      {NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kBackendHttp2WindowBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, kBackendHttp2HeaderBytes},
  }};
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kConnectionWindowBytes);
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
    const ssize_t taken = nghttp2_session_mem_recv(session_.get(), reinterpret_cast<const uint8_t*>(in.bytes().data()),
                                                   in.bytes().size());
    if (taken < 0) return false;
    in.consume(static_cast<size_t>(taken));
    send_frames();
  }
  in.release_if_empty();
  return nghttp2_session_want_read(session_.get()) != 0 || nghttp2_session_want_write(session_.get()) != 0;
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
    const uint8_t* data = nullptr;
    ssize_t bytes = 0;
    while (transport.waiting_bytes() < kGatheredBytes &&
           (bytes = nghttp2_session_mem_send(session_.get(), &data)) > 0) {
      if (!std::exchange(head_is_sent_, false)) transport.queue(http2_view(data, static_cast<size_t>(bytes)));
    }
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
  session_.reset();
  call_users();
}

// --- streams

void BackendH2Connection::leave(BackendH2Stream& stream, uint64_t keepalive_timeout_ms) {
  const bool whole = stream.head_ended_ && stream.body_ended_;
  if (session_ && stream.id_ > 0) {
    if (stream.tunnel_) end_tunnel_in_order(stream);
    // A head that waits in nghttp2 borrows its fields from the arena: after this it is not sent any more.
    if (!stream.closed_) {
      nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, stream.id_, NGHTTP2_CANCEL);
    }
    nghttp2_session_consume_connection(session_.get(), stream.in_.bytes());
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
  if (found_ == &stream) found_ = nullptr;
  if (session_ && stream.id_ > 0) nghttp2_session_set_stream_user_data(session_.get(), stream.id_, nullptr);
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
    nghttp2_session_set_local_window_size(session_.get(), NGHTTP2_FLAG_NONE, 0,
                                          kConnectionWindowBytes + static_cast<int32_t>(grown_));
  }
  grown_used_ += more;
  window.set(wider);
  nghttp2_session_set_local_window_size(session_.get(), NGHTTP2_FLAG_NONE, stream.id_, static_cast<int32_t>(wider));
}

// An unused connection holds nothing from the budget.
void BackendH2Connection::narrow() {
  if (grown_ == 0 || !session_) return;
  home_.memory().give_back(std::exchange(grown_, 0));
  nghttp2_session_set_local_window_size(session_.get(), NGHTTP2_FLAG_NONE, 0, kConnectionWindowBytes);
}

void BackendH2Connection::on_settings() {
  settings_seen_ = true;
  home_.note_tunnels(backend_, allows_connect());
  home_.note_room(backend_);  // there may be room for more streams now
  for (BackendH2Stream* stream : streams_) {
    if (stream->id_ < 0) wake(*stream);  // the stream may wait for the SETTINGS, because of tunnels
  }
}

bool BackendH2Connection::allows_connect() const {
  return nghttp2_session_get_remote_settings(session_.get(), NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL) == 1;
}

void BackendH2Connection::end_tunnel_in_order(BackendH2Stream& stream) {
  if (stream.closed_ || !stream.body_ended_ || stream.out_.bytes() > 0) return;
  if (!stream.request_ended_) stream.end_content();
  send_frames();  // nghttp2 would send a reset before these frames
}

// Null if its transaction has left the stream.
BackendH2Stream* BackendH2Connection::stream_of(int32_t id) {
  if (found_ != nullptr && found_->id_ == id) return found_;
  auto* const stream = static_cast<BackendH2Stream*>(nghttp2_session_get_stream_user_data(session_.get(), id));
  if (stream != nullptr) found_ = stream;
  return stream;
}

void BackendH2Connection::fail_stream(BackendH2Stream& stream, Failure failure, std::string_view detail) {
  stream.fail_with(failure, detail);
  wake(stream);
}

// RFC 9113 §6.8: streams above `last_id` were not and will not be processed. The others continue.
void BackendH2Connection::on_goaway(int32_t last_id) {
  draining_ = goaway_ = true;
  home_.count_goaway();
  for (BackendH2Stream* stream : streams_) {
    if (stream->id_ < 0 || stream->id_ > last_id) fail_stream(*stream, Failure::stream_refused, "GOAWAY");
  }
}

}  // namespace tidegate::l7
