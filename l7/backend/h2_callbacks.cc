// SPDX-License-Identifier: Apache-2.0
// nghttp2's callbacks of a connection to a backend. They only record what came. The users are called afterwards.
#include <algorithm>

#include "l7/backend/connections.h"
#include "l7/backend/h2_connection.h"
#include "l7/h2/headers_frame.h"
#include "l7/h2/pairs.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

BackendH2Connection& connection_of(void* self) { return *static_cast<BackendH2Connection*>(self); }

template <class Fields>
void send_head(HpackEncoder& encoder, ProxyTransport& transport, const nghttp2_frame_hd& head, const Fields& fields) {
  HeadersFrame frame(encoder, text_bytes_of(fields), fields.size());
  for (const Field& field : fields) frame.add(field.name, field.value, indexing_of(field.kind));
  frame.send(transport, head);
}

}  // namespace

nghttp2_session_callbacks* BackendH2Connection::callbacks() {
  static nghttp2_session_callbacks* const made = [] {
    nghttp2_session_callbacks* c = nullptr;
    nghttp2_session_callbacks_new(&c);
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

int BackendH2Connection::on_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t* name, size_t name_bytes,
                                   const uint8_t* value, size_t value_bytes, uint8_t, void* self) {
  if (BackendH2Stream* stream = connection_of(self).stream_of(frame->hd.stream_id)) {
    stream->add_field(http2_view(name, name_bytes), http2_view(value, value_bytes));
  }
  return 0;
}

// nghttp2 would drop the field and go on. Here a malformed field is refused, and not repaired.
int BackendH2Connection::on_invalid_header(nghttp2_session*, const nghttp2_frame* frame, const uint8_t*, size_t,
                                           const uint8_t*, size_t, uint8_t, void* self) {
  if (BackendH2Stream* stream = connection_of(self).stream_of(frame->hd.stream_id)) {
    stream->fault_ = MessageFault::bad_field;
  }
  return 0;
}

int BackendH2Connection::on_frame_received(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  BackendH2Connection& connection = connection_of(self);
  if (frame->hd.type == NGHTTP2_GOAWAY) connection.on_goaway(frame->goaway.last_stream_id);
  if (frame->hd.type == NGHTTP2_SETTINGS && (frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
    take_table_limit(connection.encoder_, frame->settings);
    connection.on_settings();
  }
  if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
  BackendH2Stream* stream = connection.stream_of(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  const bool ended = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (frame->hd.type == NGHTTP2_HEADERS && !stream->end_block(ended)) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_PROTOCOL_ERROR);
  }
  if (ended) stream->body_ended_ = true;
  connection.wake(*stream);
  return 0;
}

// nghttp2 resets the stream.
int BackendH2Connection::on_invalid_frame(nghttp2_session*, const nghttp2_frame* frame, int error, void* self) {
  BackendH2Connection& connection = connection_of(self);
  if (BackendH2Stream* stream = connection.stream_of(frame->hd.stream_id)) {
    connection.fail_stream(*stream, stream->head_ended_ ? Failure::backend_truncated : Failure::bad_response,
                           nghttp2_strerror(error));
  }
  return 0;
}

int BackendH2Connection::on_data(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* data, size_t bytes,
                                 void* self) {
  BackendH2Connection& connection = connection_of(self);
  BackendH2Stream* stream = connection.stream_of(id);
  if (stream == nullptr) {  // nobody needs it, but it counts against the connection's window
    nghttp2_session_consume(session, id, bytes);
    return 0;
  }
  stream->in_.append(http2_view(data, bytes));
  connection.wake(*stream);
  return 0;
}

ssize_t BackendH2Connection::read_body(nghttp2_session* session, int32_t id, uint8_t*, size_t bytes, uint32_t* flags,
                                       nghttp2_data_source*, void* self) {
  const BackendH2Stream* stream = connection_of(self).stream_of(id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;  // its reset is being sent
  const size_t now = std::min(bytes, stream->out_.bytes());
  if (now == 0 && !stream->request_ended_) return NGHTTP2_ERR_DEFERRED;
  *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
  if (!stream->request_ended_ || now < stream->out_.bytes()) return static_cast<ssize_t>(now);
  *flags |= NGHTTP2_DATA_FLAG_EOF;
  if (stream->request_trailers_.empty()) return static_cast<ssize_t>(now);
  const Trailers& trailers = stream->request_trailers_;
  if (!HeadersFrame::fits(text_bytes_of(trailers), trailers.size())) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
  nghttp2_submit_trailer(session, id, nullptr, 0);
  return static_cast<ssize_t>(now);
}

int BackendH2Connection::send_data(nghttp2_session*, nghttp2_frame* frame, const uint8_t* header, size_t bytes,
                                   nghttp2_data_source*, void* self) {
  BackendH2Connection& connection = connection_of(self);
  BackendH2Stream* stream = connection.stream_of(frame->hd.stream_id);
  if (stream == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  ProxyTransport& transport = connection.socket_->transport();
  transport.queue(http2_view(header, 9));
  while (bytes > 0) {
    const std::string_view piece = stream->out_.front().substr(0, bytes);
    transport.queue(piece);
    stream->out_.sent(piece.size());
    bytes -= piece.size();
  }
  if (stream->out_.bytes() == 0 && !stream->request_ended_) connection.wake(*stream);
  return 0;
}

// If the transaction has left its stream, nobody has the trailers any more. nghttp2's empty frame ends the stream.
int BackendH2Connection::on_frame_sent(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  BackendH2Connection& connection = connection_of(self);
  const BackendH2Stream* const stream = connection.stream_of(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  const bool trailers = frame->headers.cat != NGHTTP2_HCAT_REQUEST;
  if (!trailers && frame->headers.nvlen > 1) return 0;  // nghttp2 sends it
  ProxyTransport& transport = connection.socket_->transport();
  if (trailers) {
    send_head(connection.encoder_, transport, frame->hd, stream->request_trailers_);
  } else {
    send_head(connection.encoder_, transport, frame->hd, stream->head_);
  }
  connection.head_is_sent_ = true;
  return 0;
}

int BackendH2Connection::on_stream_closed(nghttp2_session*, int32_t id, uint32_t error, void* self) {
  BackendH2Connection& connection = connection_of(self);
  BackendH2Stream* stream = connection.stream_of(id);
  if (stream == nullptr) return 0;
  stream->closed_ = true;
  connection.found_ = nullptr;
  connection.wake(*stream);
  // An application may close an open tunnel in this way, without END_STREAM.
  const bool open_tunnel = stream->tunnel_ && stream->head_ended_ && stream->response_->body == BodyKind::tunnel;
  if (open_tunnel && error == NGHTTP2_NO_ERROR) stream->body_ended_ = true;
  if (stream->head_ended_ && stream->body_ended_) return 0;
  const char* const detail = nghttp2_http2_strerror(error);
  if (error == NGHTTP2_REFUSED_STREAM) {
    stream->fail_with(Failure::stream_refused, detail);
  } else {
    stream->fail_with(stream->head_ended_ ? Failure::backend_truncated : Failure::stream_reset, detail);
  }
  return 0;
}

}  // namespace tidegate::l7
