// SPDX-License-Identifier: Apache-2.0
// nghttp2's callbacks of a client's connection. They only record what came, and never call nghttp2 to receive or send.
#include <algorithm>

#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/h2/connection.h"
#include "l7/h2/pairs.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

H2Connection& client_connection_of(void* self) { return *static_cast<H2Connection*>(self); }

}  // namespace

nghttp2_session_callbacks* H2Connection::callbacks() {
  static nghttp2_session_callbacks* const made = [] {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c, &on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c, &on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(c, &on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, &on_frame_received);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(c, &on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, &on_data);
    nghttp2_session_callbacks_set_send_data_callback(c, &send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, &on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, &on_stream_closed);
    return c;
  }();
  return made;
}

int H2Connection::on_begin_headers(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  H2Connection& connection = client_connection_of(self);
  connection.header_bytes_ = 0;
  if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
  SessionBlocks& blocks = connection.connection_.worker().session_blocks();
  std::unique_ptr<H2Stream> made(new (blocks) H2Stream(connection, frame->hd.stream_id));
  H2Stream& stream = *made;
  stream.place_ = connection.streams_.size();
  connection.streams_.push_back(std::move(made));
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

int H2Connection::on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                            const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
  if (!client_connection_of(self).count_header_bytes(name_bytes, value_bytes)) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  H2Stream* stream = client_connection_of(self).stream_of(frame->hd.stream_id);
  if (stream == nullptr || stream->fault_ != MessageFault::none) return 0;
  if (stream->head_ended_) {
    add_trailer(*stream, http2_view(name, name_bytes), http2_view(value, value_bytes));
    return 0;
  }
  stream->fault_ = stream->builder_.add(http2_view(name, name_bytes), http2_view(value, value_bytes));
  return 0;
}

// Trailers that come after the request was answered are dropped.
void H2Connection::add_trailer(H2Stream& stream, std::string_view name, std::string_view value) {
  if (stream.transaction_ == nullptr || stream.response_ended_) return;
  const MessageFault fault = trailer_from_http2(name, value, stream.transaction_->arena(), stream.trailers_);
  if (fault != MessageFault::none) stream.body_fault_ = fault;
}

int H2Connection::on_invalid_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t*, size_t name_bytes,
                                    const uint8_t*, size_t value_bytes, uint8_t, void* self) {
  if (!client_connection_of(self).count_header_bytes(name_bytes, value_bytes)) {
    return NGHTTP2_ERR_CALLBACK_FAILURE;
  }
  // nghttp2 would drop the field and go on. Here a malformed field is refused, and not repaired.
  H2Stream* stream = client_connection_of(self).stream_of(frame->hd.stream_id);
  if (stream != nullptr && !stream->head_ended_) stream->fault_ = MessageFault::bad_field;
  return 0;
}

// nghttp2 finds the message malformed, and resets its stream. close_stream() logs it then.
int H2Connection::on_invalid_frame(nghttp2_session*, const nghttp2_frame* frame, int error, void* self) {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  H2Stream* stream = client_connection_of(self).stream_of(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  MessageFault& fault = stream->head_ended_ ? stream->body_fault_ : stream->fault_;
  // All fields are there, and something is missing or does not fit: finish() finds out what.
  const bool whole_head = error == NGHTTP2_ERR_HTTP_MESSAGING && !stream->head_ended_;
  if (whole_head && fault == MessageFault::none) fault = stream->builder_.finish(false);
  if (fault == MessageFault::none) fault = MessageFault::malformed;
  if (!stream->head_ended_) {
    stream->head_ended_ = true;
    --client_connection_of(self).unfinished_heads_;
  }
  return 0;
}

int H2Connection::on_frame_received(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  H2Connection& connection = client_connection_of(self);
  // CVE-2023-44487: a limit on resets per connection does not help against a client that opens many connections.
  if (frame->hd.type == NGHTTP2_RST_STREAM) connection.connection_.charge_address(1);
  const bool acknowledged = frame->hd.type == NGHTTP2_PING && (frame->hd.flags & NGHTTP2_FLAG_ACK) != 0;
  if (acknowledged && std::equal(std::begin(kHttp2DrainPing), std::end(kHttp2DrainPing), frame->ping.opaque_data)) {
    connection.say_last_request();
  }
  const bool settings = frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0;
  if (settings) take_table_limit(connection.encoder_, frame->settings);
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  H2Stream* stream = connection.stream_of(frame->hd.stream_id);
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
  H2Connection& connection = client_connection_of(self);
  H2Stream* stream = connection.stream_of(id);
  if (stream != nullptr) stream->received_ += bytes;
  // Nobody needs the data, but it counts against the connection's window.
  if (stream != nullptr && stream->held_reset_.held()) {
    nghttp2_session_consume_connection(session, bytes);
    return 0;
  }
  if (stream == nullptr || stream->transaction_ == nullptr) {
    nghttp2_session_consume(session, id, bytes);
    return 0;
  }
  stream->in_.append(http2_view(data, bytes));
  connection.note_progress();
  connection.conduct_.on_content_received();
  connection.wake(*stream);
  return 0;
}

ssize_t H2Connection::read_body(nghttp2_session* session, int32_t id, uint8_t*, size_t bytes, uint32_t* flags,
                                nghttp2_data_source* source, void*) {
  const auto& stream = *static_cast<const H2Stream*>(source->ptr);
  const size_t now = std::min(bytes, stream.out_.bytes());
  if (now == 0 && !stream.response_ended_) return NGHTTP2_ERR_DEFERRED;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (!stream.response_ended_ || now < stream.out_.bytes()) return static_cast<ssize_t>(now);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (!stream.has_trailers_) return static_cast<ssize_t>(now);
  *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  nghttp2_submit_trailer(session, id, nullptr, 0);
  return static_cast<ssize_t>(now);
}

int H2Connection::send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t bytes,
                            nghttp2_data_source* source, void* self) {
  H2Connection& connection = client_connection_of(self);
  auto& stream = *static_cast<H2Stream*>(source->ptr);
  // We never ask for padding, so a DATA frame is its header and its bytes.
  (void)frame;
  if (connection.transport_.waiting_bytes() >= kHttp2GatheredBytes) return NGHTTP2_ERR_WOULDBLOCK;
  connection.note_progress();
  stream.sent_ += bytes;
  connection.sent_ += bytes;
  connection.conduct_.on_content_sent(bytes, bytes >= 1024 || stream.out_.bytes() == bytes);
  const bool waited = stream.out_.bytes() > 0;
  connection.transport_.queue(http2_view(header, 9));
  while (bytes > 0) {
    const std::string_view piece = stream.out_.front().substr(0, bytes);
    connection.transport_.queue(piece);  // frames are sent together, because a write for each costs more than a copy
    stream.out_.sent(piece.size());
    bytes -= piece.size();
  }
  if (waited && stream.out_.bytes() == 0) --connection.answers_waiting_;
  if (stream.out_.bytes() == 0 && !stream.response_ended_) connection.wake(stream);
  return 0;
}

int H2Connection::on_frame_sent(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  H2Connection& connection = client_connection_of(self);
  if (frame->hd.type == NGHTTP2_GOAWAY && frame->goaway.error_code != NGHTTP2_NO_ERROR) {
    connection.connection_.worker().stats().count_flood(Http2Fault::protocol);
  }
  if (frame->hd.type == NGHTTP2_RST_STREAM) connection.count_own_reset(frame->hd.stream_id, frame->rst_stream);
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  H2Stream* stream = connection.stream_of(frame->hd.stream_id);
  if (frame->hd.type == NGHTTP2_HEADERS) {
    connection.head_is_sent_ = stream != nullptr && frame->headers.nvlen == 0 &&
                               stream->heads_.send_first(connection.encoder_, connection.transport_, frame->hd);
  } else if (stream != nullptr) {
    connection.watch_stream(*stream);
  }
  if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) return 0;
  if (stream != nullptr && !stream->body_ended_) stream->leave_rest();
  return 0;
}

// A reset that the client's error made us send counts like the client's own reset (CVE-2025-8671). A stream above the
// limit costs only its frame, because a client may open many before it has read our SETTINGS.
void H2Connection::count_own_reset(int32_t id, const nghttp2_rst_stream& reset) {
  if (reset.error_code == NGHTTP2_NO_ERROR || reset.error_code == NGHTTP2_REFUSED_STREAM) return;
  H2Stream* stream = stream_of(id);
  if (stream != nullptr && stream->backend_broke_) return;
  if (stream != nullptr && reset.error_code == NGHTTP2_PROTOCOL_ERROR) {
    stream->gone_why_ = Failure::bad_request;
    // on_invalid_frame() handles the faults of heads and trailers.
    const bool of_body = stream->fault_ == MessageFault::none && stream->body_fault_ == MessageFault::none;
    if (of_body) stream->body_fault_ = MessageFault::bad_content_length;
  }
  conduct_.on_reset();
  connection_.charge_address(1);
}

int H2Connection::on_stream_closed(nghttp2_session*, int32_t id, uint32_t, void* self) {
  if (H2Stream* stream = client_connection_of(self).stream_of(id)) client_connection_of(self).close_stream(stream);
  return 0;
}

}  // namespace tidegate::l7
