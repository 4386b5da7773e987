// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "core/clock.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr uint8_t kDrainPing[8] = {'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'};
constexpr size_t kGatheredBytes = kBlockBytes;  // frames that leave in one write

std::string_view view(const uint8_t* data, size_t bytes) { return {reinterpret_cast<const char*>(data), bytes}; }

nghttp2_nv pair(std::string_view name, std::string_view value) {
  const auto bytes = [](std::string_view text) { return reinterpret_cast<uint8_t*>(const_cast<char*>(text.data())); };
  return {bytes(name), bytes(value), name.size(), value.size(), NGHTTP2_NV_FLAG_NONE};
}

// Room for an answer's fields, its status and its length.
using FieldPairs = std::array<nghttp2_nv, http1::kMaxFields + 40>;

// Returns the number of pairs.
size_t put_fields(FieldPairs& pairs, std::string_view status, const FieldList& fields) {
  size_t count = 0;
  pairs[count++] = pair(":status", status);
  for (const Field& field : fields) {
    if (field.kind == FieldKind::hop_by_hop) continue;  // Upgrade has no place in HTTP/2 (RFC 9113 §8.2.2)
    pairs[count] = pair(field.name, field.value);
    // No two answers share it: in the compression table it would only crowd out what answers do share.
    if (field.kind == FieldKind::x_request_id) pairs[count].flags = NGHTTP2_NV_FLAG_NO_INDEX;
    ++count;
  }
  return count;
}

H2Stream* stream_of(nghttp2_session* session, int32_t id) {
  return static_cast<H2Stream*>(nghttp2_session_get_stream_user_data(session, id));
}

}  // namespace

std::unique_ptr<ClientProtocol> make_http2(ClientConnection& connection) {
  return std::make_unique<H2Connection>(connection);
}

// --- the stream

H2Stream::H2Stream(H2Connection& connection, int32_t id)
    : connection_(connection),
      id_(id),
      in_(connection.connection_.worker().blocks()),
      out_(connection.connection_.worker().blocks()),
      window_(kHttp2StreamWindowBytes) {}

std::string_view H2Stream::next_piece() {
  if (taken_ > 0) {
    in_.sent(taken_);
    nghttp2_session_consume(connection_.session_.get(), id_, taken_);
    taken_in_window_ += taken_;
    if (taken_in_window_ >= window_ && in_.bytes() == 0) connection_.widen_window(*this);
  }
  const std::string_view piece = in_.front();
  taken_ = piece.size();
  return piece;
}

void H2Stream::want_body() {
  if (body_ended_ || response_begun_ || transaction_ == nullptr || !transaction_->request().expect_continue) return;
  transaction_->request().expect_continue = false;
  const nghttp2_nv status = pair(":status", "100");
  nghttp2_submit_headers(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, nullptr, &status, 1, nullptr);
}

void H2Stream::send_interim(uint16_t status, const FieldList& fields) {
  if (response_begun_) return;
  FieldPairs pairs;
  const fmt::format_int status_text(status);
  size_t count = put_fields(pairs, {status_text.data(), status_text.size()}, fields);
  nghttp2_submit_headers(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, nullptr, pairs.data(), count, nullptr);
}

void H2Stream::send_head(const AnswerHead& head) {
  FieldPairs pairs;
  const fmt::format_int status_text(head.status), length_text(head.content_length);
  size_t count = put_fields(pairs, {status_text.data(), status_text.size()}, head.fields);
  if (head.content_length_known && head.status != 204) {
    pairs[count++] = pair("content-length", {length_text.data(), length_text.size()});
  }
  if (head.body == BodyKind::none) make_room_for_rest();
  response_begun_ = true;
  has_body_ = head.body != BodyKind::none;
  nghttp2_data_provider provider{};
  provider.source.ptr = this;
  provider.read_callback = &H2Connection::read_body;
  nghttp2_submit_response(connection_.session_.get(), id_, pairs.data(), count, has_body_ ? &provider : nullptr);
}

void H2Stream::send_piece(std::string_view piece) {
  if (out_.bytes() == 0 && !piece.empty()) ++connection_.answers_waiting_;
  if (!out_.append(piece)) return abort_response();
  connection_.watch_stream(*this);
  nghttp2_session_resume_data(connection_.session_.get(), id_);
}

void H2Stream::end_response() {
  response_ended_ = true;
  if (!has_body_) return;
  make_room_for_rest();
  nghttp2_session_resume_data(connection_.session_.get(), id_);
}

void H2Stream::abort_response() {
  backend_broke_ = true;
  nghttp2_submit_rst_stream(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, NGHTTP2_INTERNAL_ERROR);
}

void H2Stream::flush() { connection_.pump_at_round_end(); }

void H2Stream::on_transaction_over() {
  transaction_ = nullptr;
  connection_.pump_at_round_end();
}

// The answer is about to end before the request. A short rest is taken and dropped, since clients that are reset while
// they send (RFC 9113 §8.1 would allow it) may fail; its window is opened ahead of the answer's last frame, since
// clients that have their answer may read no window update any more.
void H2Stream::make_room_for_rest() {
  if (body_ended_ || transaction_ == nullptr) return;
  const RequestHead& request = transaction_->request();
  takes_rest_ = request.body == BodyKind::known && request.content_length - received_ <= kHttp2RestBytes;
  if (!takes_rest_) return;
  const auto window = static_cast<int32_t>(window_ + request.content_length - received_);
  nghttp2_session_set_local_window_size(connection_.session_.get(), NGHTTP2_FLAG_NONE, id_, window);
}

// The answer's last frame is sent. The rest of the request is dropped. If it is long, a reset tells the client to stop,
// but only after kHttp2ResetDelayMs: curl 7.88 takes the answer for broken if it reads the answer's end and the reset
// at once. Until then the stream's window is not opened again.
void H2Stream::leave_rest() {
  nghttp2_session* session = connection_.session_.get();
  if (takes_rest_) {
    nghttp2_session_consume(session, id_, in_.bytes());
  } else {
    nghttp2_session_consume_connection(session, in_.bytes());
    reset_at_ns_ = connection_.connection_.worker().loop().now_ns() + kHttp2ResetDelayMs * kNsPerMs;
    connection_.look_at_ns(reset_at_ns_);
  }
  in_.clear();
  taken_ = 0;
}

const ClientFacts& H2Stream::facts() const { return connection_.connection_.facts(); }

std::string H2Stream::server_name() const { return connection_.connection_.server_name(); }

// --- the connection

nghttp2_session_callbacks* H2Connection::callbacks() {
  static nghttp2_session_callbacks* const made = [] {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, &on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(c, &on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, &on_frame_received);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &on_data);
    nghttp2_session_callbacks_set_send_data_callback(c, &send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, &on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, &on_stream_closed);
    return c;
  }();
  return made;
}

H2Connection::H2Connection(ClientConnection& connection)
    : connection_(connection), transport_(connection.transport()), window_(kHttp2ConnectionWindowBytes) {
  nghttp2_option* options = nullptr;
  nghttp2_option_new(&options);
  nghttp2_option_set_no_auto_window_update(options, 1);
  nghttp2_option_set_stream_reset_rate_limit(options, 2 * kHttp2ResetBurst,
                                             2 * kHttp2ResetsPerSecond);  // ours comes first
  nghttp2_option_set_max_continuations(options, kHttp2Continuations);
  nghttp2_session* session = nullptr;
  nghttp2_session_server_new2(&session, callbacks(), this, options);
  nghttp2_option_del(options);
  session_.reset(session);

  const std::array<nghttp2_settings_entry, 3> settings{{
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, kHttp2MaxStreams},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, kHttp2StreamWindowBytes},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(connection.limits().head_bytes)},
  }};
  nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, kHttp2ConnectionWindowBytes);
  note_progress();
}

H2Connection::~H2Connection() { connection_.worker().give_back_window(window_ - kHttp2ConnectionWindowBytes); }

void H2Connection::on_ready() {
  if (pumping_) return;
  transport_.flush();
  pump();
}

// Answers of several streams that backends gave in one round leave in one write.
void H2Connection::pump_at_round_end() {
  if (!pumping_ && !connection_.closed()) connection_.worker().call_at_round_end(connection_);
}

void H2Connection::pump() {
  if (pumping_ || connection_.closed()) return;
  if (sent_away_) return linger();
  pumping_ = true;
  for (int round = 0;; ++round) {
    receive();
    if (connection_.closed() || sent_away_) break;
    if (round >= kHttp2RoundsPerTurn) {
      for (H2Stream* stream : awake_) {
        if (stream->begun_ && stream->transaction_ != nullptr) {
          connection_.worker().resume_later(*stream->transaction_);
          stream->awake_ = false;
        }
      }
      std::erase_if(awake_, [](const H2Stream* stream) { return !stream->awake_; });
    }
    resume_awake();
    send_frames();
    if (awake_.empty()) break;
  }
  pumping_ = false;
  if (connection_.closed()) return;
  if (sent_away_) return linger();
  const bool over = !nghttp2_session_want_read(session_.get()) && !nghttp2_session_want_write(session_.get());
  if (transport_.broken()) return connection_.close();
  if (over && transport_.drained()) return connection_.close_in_order();
  if (streams_.size() == unfinished_heads_ && transport_.drained()) connection_.note_idle();
  watch_client();
}

// Reads only while what we answer finds its way out: nobody makes us pile up acknowledgements.
void H2Connection::receive() {
  InBuffer& in = connection_.in();
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  conduct_.refill(now_ns);
  while (transport_.drained()) {
    if (in.empty()) {
      const Transport::Status status = transport_.fill(in);
      if (status == Transport::Status::blocked) break;
      if (status != Transport::Status::ok) return connection_.close();
    }
    const uint64_t most = turn_frames_.left(now_ns, kHttp2TurnFrames);
    uint64_t left = most;
    const size_t bytes = walk_.next(in.bytes(), left, conduct_);
    turn_frames_.use(most - left);
    if (bytes == 0) {
      transport_.yield();
      break;
    }
    const ssize_t taken =
        nghttp2_session_mem_recv(session_.get(), reinterpret_cast<const uint8_t*>(in.bytes().data()), bytes);
    if (taken < 0) return send_away_for(static_cast<int>(taken));
    in.consume(static_cast<size_t>(taken));
    send_frames();
    if (const Http2Fault fault = conduct_.fault(); fault != Http2Fault::none) {
      return send_away(NGHTTP2_ENHANCE_YOUR_CALM, fault);
    }
  }
  in.release_if_empty();
}

void H2Connection::send_frames() {
  for (;;) {
    const uint8_t* data = nullptr;
    ssize_t bytes = 0;
    while (transport_.waiting_bytes() < kGatheredBytes &&
           (bytes = nghttp2_session_mem_send(session_.get(), &data)) > 0) {
      transport_.queue(view(data, static_cast<size_t>(bytes)));
    }
    const bool more = transport_.waiting_bytes() >= kGatheredBytes;
    transport_.flush();
    if (!more || !transport_.drained()) return;
  }
}

void H2Connection::wake(H2Stream& stream) {
  if (stream.awake_) return;
  stream.awake_ = true;
  awake_.push_back(&stream);
}

void H2Connection::resume_awake() {
  // Resuming one stream may close another, which then takes itself off the list.
  for (size_t turns = awake_.size(); turns > 0 && !awake_.empty(); --turns) {
    H2Stream* stream = awake_.front();
    awake_.erase(awake_.begin());
    stream->awake_ = false;
    resume_stream(*stream);
  }
}

void H2Connection::resume_stream(H2Stream& stream) {
  if (stream.transaction_ == nullptr) return;
  if (stream.begun_) {
    stream.transaction_->resume();
  } else {
    start_request(stream);
  }
}

void H2Connection::start_request(H2Stream& stream) {
  connection_.note_busy();
  stream.begun_ = true;
  conduct_.on_request();
  if (stream.fault_ == MessageFault::none) stream.fault_ = stream.builder_.finish(stream.head_ends_stream_);
  PlanPin plan = connection_.pin_plan();
  Transaction& transaction = *stream.transaction_;
  if (stream.fault_ == MessageFault::none) return transaction.start(stream, std::move(plan));
  connection_.worker().stats().count_refusal(stream.fault_);
  const std::string line = fmt::format("{} {} HTTP/2", transaction.request().method,
                                       stream.builder_.target().substr(0, kLoggedTextBytes + 1));
  transaction.start_refused(stream, std::move(plan), refusal_of(stream.fault_, line));
}

// A window bounds the bytes of one round trip. If the backend takes whole windows, the window holds the client up. Then
// the stream's window doubles, and the connection's grows with it, within the worker's budget for such windows.
void H2Connection::widen_window(H2Stream& stream) {
  stream.taken_in_window_ = 0;
  if (stream.body_ended_ || stream.takes_rest_ || stream.reset_at_ns_ != 0) return;
  const size_t wider = std::min<size_t>(2 * stream.window_, kHttp2StreamWindowMostBytes);
  if (wider == stream.window_) return;
  const size_t of_all = wider + kHttp2ConnectionWindowBytes / 4;  // other streams need some too
  if (of_all > window_) {
    if (!connection_.worker().take_window(of_all - window_)) return;
    window_ = of_all;
    nghttp2_session_set_local_window_size(session_.get(), NGHTTP2_FLAG_NONE, 0, static_cast<int32_t>(window_));
  }
  stream.window_ = wider;
  nghttp2_session_set_local_window_size(session_.get(), NGHTTP2_FLAG_NONE, stream.id_, static_cast<int32_t>(wider));
}

// A block that is too large is answered 431, but each of its fields has been decoded and checked by then: it has an
// end.
bool H2Connection::count_header_bytes(size_t name_bytes, size_t value_bytes) {
  header_bytes_ += name_bytes + value_bytes + 32;  // as RFC 9113 §6.5.2 counts
  return header_bytes_ <= connection_.limits().head_bytes + kHttp2RefusedHeaderBytes;
}

void H2Connection::close_stream(H2Stream* stream) {
  if (!stream->head_ended_) --unfinished_heads_;
  if (stream->awake_) std::erase(awake_, stream);
  if (stream->out_.bytes() > 0) --answers_waiting_;
  // What nobody will read any more still counts against the connection's window.
  nghttp2_session_consume_connection(session_.get(), stream->in_.bytes());
  Transaction* transaction = std::exchange(stream->transaction_, nullptr);
  if (transaction != nullptr) {
    if (stream->begun_) {
      transaction->client_gone(stream->gone_why_);
    } else {
      if (stream->head_ended_) connection_.worker().stats().http2_cancelled.add();
      transaction->abandon();
    }
  } else if (stream->gone_why_ == Failure::client_too_slow) {
    connection_.worker().stats().count_failure(Failure::client_too_slow);
  }
  note_progress();
  std::erase_if(streams_, [&](const auto& kept) { return kept.get() == stream; });
}

void H2Connection::drain() {
  if (draining_ || sent_away_) return;
  // RFC 9113 §6.8: a GOAWAY that refuses nothing yet, then, a round trip later, one that names the last request. What
  // the client had sent before it read the first one is answered.
  draining_ = true;
  nghttp2_submit_shutdown_notice(session_.get());
  nghttp2_submit_ping(session_.get(), NGHTTP2_FLAG_NONE, kDrainPing);
  say_last_at_ns_ = connection_.worker().loop().now_ns() + kHttp2GoawayWaitMs * kNsPerMs;
  look_at_ns(say_last_at_ns_);
  pump();
}

void H2Connection::say_last_request() {
  if (!draining_ || last_said_) return;
  last_said_ = true;
  nghttp2_submit_goaway(session_.get(), NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_.get()),
                        NGHTTP2_NO_ERROR, nullptr, 0);
}

void H2Connection::on_closing() {
  while (!streams_.empty()) close_stream(streams_.back().get());
}

// The timer is not put off by what happens meanwhile: it looks, and is set anew.
void H2Connection::look_at_ns(uint64_t at_ns) {
  if (at_ns >= next_look_ns_) return;
  next_look_ns_ = at_ns;
  connection_.timer().arm_at_ns(at_ns);
}

void H2Connection::note_progress() { progress_ns_ = connection_.worker().loop().now_ns(); }

// Says whether the client is waited for: it takes nothing from the socket, or keeps its window shut.
void H2Connection::watch_client() {
  const PatienceTerms& terms = connection_.facts().patience;
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  uint64_t next_ns = now_ns + terms.whole_ns;
  const bool socket_full = !transport_.drained();
  if (socket_full) {
    next_ns = std::min(next_ns, socket_patience_.wait(terms, now_ns));
  } else {
    socket_patience_.pause(now_ns);
  }
  if (!socket_full && answers_waiting_ > 0 && nghttp2_session_get_remote_window_size(session_.get()) <= 0) {
    next_ns = std::min(next_ns, window_patience_.wait(terms, now_ns));
  } else {
    window_patience_.pause(now_ns);
  }
  look_at_ns(next_ns);
}

void H2Connection::watch_stream(H2Stream& stream) {
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  const bool shut = nghttp2_session_get_stream_remote_window_size(session_.get(), stream.id_) <= 0;
  if (stream.out_.bytes() > 0 && shut) {
    look_at_ns(stream.patience_.wait(connection_.facts().patience, now_ns));
  } else {
    stream.patience_.pause(now_ns);
  }
}

// Looks who has waited too long for the client, and looks again when that might next be so. Frames that move no body
// (PING, SETTINGS) renew nothing. A stream that waits for its backend is the backend's affair.
void H2Connection::on_timer() {
  if (sent_away_) return connection_.close();
  const PatienceTerms& terms = connection_.facts().patience;
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  next_look_ns_ = UINT64_MAX;
  if (draining_ && !last_said_) {
    if (now_ns >= say_last_at_ns_) {
      say_last_request();
    } else {
      look_at_ns(say_last_at_ns_);
    }
  }
  uint64_t taken_until_ns = UINT64_MAX;
  if (socket_patience_.waiting()) {
    taken_until_ns = socket_patience_.renew(terms, transport_.bytes_acknowledged(), now_ns);
  }
  if (window_patience_.waiting()) {
    taken_until_ns = std::min(taken_until_ns, window_patience_.renew(terms, sent_, now_ns));
  }
  if (taken_until_ns <= now_ns) {
    for (const auto& stream : streams_) stream->gone_why_ = Failure::client_too_slow;
    return give_up();
  }
  uint64_t next_ns = std::min(now_ns + terms.whole_ns, taken_until_ns);
  if (unfinished_heads_ > 0) {
    next_ns = std::min(next_ns, head_begun_ns_ + connection_.limits().header_timeout_ms * kNsPerMs);
  }
  const bool backend_awaited = std::any_of(streams_.begin(), streams_.end(), [](const auto& stream) {
    return stream->transaction_ != nullptr && stream->head_ended_ && stream->out_.bytes() == 0;
  });
  if (transport_.drained() && answers_waiting_ == 0 && !backend_awaited) {
    next_ns = std::min(next_ns, progress_ns_ + terms.whole_ns);
  }
  if (next_ns <= now_ns) return give_up();
  look_at_ns(std::min(next_ns, look_at_streams(now_ns)));
  if (nghttp2_session_want_write(session_.get())) pump();
}

// Ends each stream whose client has kept its own window shut for too long, while others may move. When the next is due.
uint64_t H2Connection::look_at_streams(uint64_t now_ns) {
  uint64_t next_ns = UINT64_MAX;
  for (const auto& stream : streams_) {
    if (stream->reset_at_ns_ != 0 && stream->reset_at_ns_ <= now_ns) {
      stream->reset_at_ns_ = 0;
      nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, stream->id_, NGHTTP2_NO_ERROR);
    } else if (stream->reset_at_ns_ != 0) {
      next_ns = std::min(next_ns, stream->reset_at_ns_);
    }
    watch_stream(*stream);
    if (!stream->patience_.waiting()) continue;
    const uint64_t end_ns = stream->patience_.renew(connection_.facts().patience, stream->sent_, now_ns);
    if (end_ns > now_ns) {
      next_ns = std::min(next_ns, end_ns);
    } else {
      stream->gone_why_ = Failure::client_too_slow;
      nghttp2_submit_rst_stream(session_.get(), NGHTTP2_FLAG_NONE, stream->id_, NGHTTP2_CANCEL);
    }
  }
  return next_ns;
}

void H2Connection::give_up() {
  nghttp2_session_terminate_session(session_.get(), NGHTTP2_NO_ERROR);
  send_frames();
  if (transport_.drained()) return connection_.close_in_order();
  connection_.close();
}

void H2Connection::send_away(uint32_t error, Http2Fault why) {
  if (sent_away_) return;
  sent_away_ = true;
  connection_.worker().stats().count_flood(why);
  connection_.charge_address(kFloodCost);
  const auto last = static_cast<uint32_t>(nghttp2_session_get_last_proc_stream_id(session_.get()));
  while (!streams_.empty()) close_stream(streams_.back().get());
  std::array<char, 17> frame{0, 0, 8, NGHTTP2_GOAWAY};  // RFC 9113 §6.8
  for (size_t i = 0; i < 4; ++i) {
    frame[9 + i] = static_cast<char>(last >> (24 - 8 * i));
    frame[13 + i] = static_cast<char>(error >> (24 - 8 * i));
  }
  // A client that does not even read is not waited for.
  if (!transport_.drained() || !transport_.queue({frame.data(), frame.size()})) return connection_.close();
  transport_.shut_write();
  connection_.timer().arm_after_ms(kHttp1LingerMs);
}

void H2Connection::send_away_for(int library_error) {
  switch (library_error) {
    case NGHTTP2_ERR_CALLBACK_FAILURE:
      return send_away(NGHTTP2_ENHANCE_YOUR_CALM, Http2Fault::header_bytes);
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
      return send_away(NGHTTP2_PROTOCOL_ERROR, Http2Fault::protocol);
    case NGHTTP2_ERR_NOMEM:
      return send_away(NGHTTP2_INTERNAL_ERROR, Http2Fault::library);
    default:
      return send_away(NGHTTP2_ENHANCE_YOUR_CALM, Http2Fault::library);
  }
}

// Closing with input unread would make the kernel send a reset, and that may overtake what was said last.
void H2Connection::linger() {
  InBuffer& in = connection_.in();
  for (;;) {
    lingered_bytes_ += in.bytes().size();
    in.consume(in.bytes().size());
    if (lingered_bytes_ > kHttp1LingerBytes) return connection_.close();
    const Transport::Status status = transport_.fill(in);
    if (status == Transport::Status::blocked) break;
    if (status != Transport::Status::ok) return connection_.close();
  }
  in.release_if_empty();
}

// --- nghttp2's callbacks

int H2Connection::on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  auto& connection = *static_cast<H2Connection*>(self);
  connection.header_bytes_ = 0;
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  connection.streams_.push_back(std::make_unique<H2Stream>(connection, frame->hd.stream_id));
  H2Stream& stream = *connection.streams_.back();
  nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, &stream);
  if (connection.unfinished_heads_++ == 0) {
    connection.head_begun_ns_ = connection.connection_.worker().loop().now_ns();
    connection.look_at_ns(connection.head_begun_ns_ + connection.connection_.limits().header_timeout_ms * kNsPerMs);
  }
  stream.transaction_ = &connection.connection_.worker().take_transaction();
  stream.builder_.start(stream.transaction_->arena(), stream.transaction_->request(),
                        connection.connection_.limits().head_bytes, connection.connection_.limits().fields);
  return 0;
}

int H2Connection::on_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                            size_t name_bytes, const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
  if (!static_cast<H2Connection*>(self)->count_header_bytes(name_bytes, value_bytes)) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  H2Stream* stream = stream_of(session, frame->hd.stream_id);
  if (stream == nullptr || stream->head_ended_ || stream->fault_ != MessageFault::none) return 0;  // trailers: dropped
  stream->fault_ = stream->builder_.add(view(name, name_bytes), view(value, value_bytes));
  return 0;
}

int H2Connection::on_invalid_header(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t*,
                                    size_t name_bytes, const uint8_t*, size_t value_bytes, uint8_t, void* self) {
  if (!static_cast<H2Connection*>(self)->count_header_bytes(name_bytes, value_bytes)) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  // nghttp2 would drop the field and go on; what is not understood is refused here, not repaired.
  H2Stream* stream = stream_of(session, frame->hd.stream_id);
  if (stream != nullptr && !stream->head_ended_) stream->fault_ = MessageFault::bad_field;
  return 0;
}

int H2Connection::on_frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  auto& connection = *static_cast<H2Connection*>(self);
  // CVE-2023-44487: a connection's own bound on resets is worth little to one who opens connection after connection.
  if (frame->hd.type == NGHTTP2_RST_STREAM) connection.connection_.charge_address(1);
  const bool acknowledged = frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
  if (acknowledged && std::equal(std::begin(kDrainPing), std::end(kDrainPing), frame->ping.opaque_data)) {
    connection.say_last_request();
  }
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  H2Stream* stream = stream_of(session, frame->hd.stream_id);
  if (stream == nullptr) return 0;
  const bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (ended) stream->body_ended_ = true;
  if (frame->hd.type == NGHTTP2_HEADERS && !stream->head_ended_) {
    stream->head_ended_ = true;
    stream->head_ends_stream_ = ended;
    --connection.unfinished_heads_;
    connection.note_progress();
    connection.wake(*stream);
  } else if (ended) {
    connection.wake(*stream);
  }
  return 0;
}

int H2Connection::on_data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t bytes,
                          void* self) {
  auto& connection = *static_cast<H2Connection*>(self);
  H2Stream* stream = stream_of(session, id);
  if (stream != nullptr) stream->received_ += bytes;
  // Nobody needs the data, but it counts for the connection's window.
  if (stream != nullptr && stream->reset_at_ns_ != 0) {
    nghttp2_session_consume_connection(session, bytes);
    return 0;
  }
  if (stream == nullptr || stream->transaction_ == nullptr) {
    nghttp2_session_consume(session, id, bytes);
    return 0;
  }
  stream->in_.append(view(data, bytes));
  connection.note_progress();
  connection.conduct_.on_content_received();
  connection.wake(*stream);
  return 0;
}

ssize_t H2Connection::read_body(nghttp2_session*, int32_t, uint8_t*, size_t bytes, uint32_t* flags,
                                nghttp2_data_source* source, void*) {
  const auto& stream = *static_cast<const H2Stream*>(source->ptr);
  const size_t now = std::min(bytes, stream.out_.bytes());
  if (now == 0 && !stream.response_ended_) return NGHTTP2_ERR_DEFERRED;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (stream.response_ended_ && now == stream.out_.bytes()) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return static_cast<ssize_t>(now);
}

int H2Connection::send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t bytes,
                            nghttp2_data_source* source, void* self) {
  auto& connection = *static_cast<H2Connection*>(self);
  auto& stream = *static_cast<H2Stream*>(source->ptr);
  // Padding is never asked for: a DATA frame is its header and its bytes.
  (void)frame;
  if (connection.transport_.waiting_bytes() >= kGatheredBytes) return NGHTTP2_ERR_WOULDBLOCK;
  connection.note_progress();
  stream.sent_ += bytes;
  connection.sent_ += bytes;
  connection.conduct_.on_content_sent(bytes, bytes >= 1024 || stream.out_.bytes() == bytes);
  const bool waited = stream.out_.bytes() > 0;
  connection.transport_.queue(view(header, 9));
  while (bytes > 0) {
    const std::string_view piece = stream.out_.front().substr(0, bytes);
    connection.transport_.queue(piece);  // frames leave together: a write of each its own costs more than a copy
    stream.out_.sent(piece.size());
    bytes -= piece.size();
  }
  if (waited && stream.out_.bytes() == 0) --connection.answers_waiting_;
  if (stream.out_.bytes() == 0 && !stream.response_ended_) connection.wake(stream);
  return 0;
}

int H2Connection::on_frame_sent(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  auto& connection = *static_cast<H2Connection*>(self);
  if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
    connection.connection_.worker().stats().count_flood(Http2Fault::protocol);
  }
  if (frame->hd.type == NGHTTP2_RST_STREAM) connection.count_own_reset(frame->hd.stream_id, frame->rst_stream);
  if (frame->hd.type == NGHTTP2_DATA) {
    if (H2Stream* stream = stream_of(session, frame->hd.stream_id)) connection.watch_stream(*stream);
  }
  const bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (!ends) return 0;
  H2Stream* stream = stream_of(session, frame->hd.stream_id);
  if (stream != nullptr && !stream->body_ended_) stream->leave_rest();
  return 0;
}

// A reset that the client's error made us send counts like its own (CVE-2025-8671). A stream above the limit costs no
// more than its frame: a client may open many before it has read our SETTINGS.
void H2Connection::count_own_reset(int32_t id, const nghttp2_rst_stream& reset) {
  if (reset.error_code == NGHTTP2_NO_ERROR || reset.error_code == NGHTTP2_REFUSED_STREAM) return;
  const H2Stream* stream = stream_of(session_.get(), id);
  if (stream != nullptr && stream->backend_broke_) return;
  conduct_.on_reset();
  connection_.charge_address(1);
}

int H2Connection::on_stream_closed(nghttp2_session* session, int32_t id, uint32_t, void* self) {
  if (H2Stream* stream = stream_of(session, id)) static_cast<H2Connection*>(self)->close_stream(stream);
  return 0;
}

}  // namespace tidegate::l7
