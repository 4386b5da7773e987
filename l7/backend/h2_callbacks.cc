// SPDX-License-Identifier: Apache-2.0
// What the session of a connection to a backend tells. It is only recorded. The users are called afterwards.
#include <utility>

#include "core/assert.h"
#include "l7/backend/connections.h"
#include "l7/backend/h2_connection.h"
#include "l7/h2/headers_frame.h"
#include "l7/h2/sent_fields.h"
#include "l7/limits.h"

namespace tidegate::l7 {
namespace {

constexpr const char* kMalformedField = "Invalid HTTP header field was received";
constexpr const char* kMalformedMessage = "Violation in HTTP messaging rule";

BackendH2Stream& backend_stream(Http2Stream& stream) { return static_cast<BackendH2Stream&>(stream); }

template <class Fields>
void send_head(HpackEncoder& encoder, ProxyTransport& transport, int32_t id, bool ends, const Fields& fields) {
  HeadersFrame frame(encoder, text_bytes_of(fields), fields.size());
  for (const Field& field : fields) frame.add(field.name, field.value, indexing_of(field.kind));
  frame.send(transport, id, ends);
}

}  // namespace

Http2Stream& BackendH2Connection::open_stream(int32_t) {
  TIDEGATE_ASSERT(false, "a backend opens no stream");
  __builtin_unreachable();
}

bool BackendH2Connection::on_field(Http2Stream& of, const Http2Field& field) {
  backend_stream(of).add_field(field);
  return true;
}

// A field that HTTP/1 would refuse is refused here too, and not repaired.
bool BackendH2Connection::on_bad_field(Http2Stream& of) {
  backend_stream(of).fault_ = MessageFault::bad_field;
  return true;
}

void BackendH2Connection::on_head(Http2Stream& of, bool ends) {
  BackendH2Stream& stream = backend_stream(of);
  if (!stream.end_block(ends)) session_->reset(stream, Http2Error::protocol_error);
  if (ends) stream.body_ended_ = true;
  wake(stream);
}

void BackendH2Connection::on_malformed(Http2Stream& of, bool whole) {
  BackendH2Stream& stream = backend_stream(of);
  fail_stream(stream, stream.head_ended_ ? Failure::backend_truncated : Failure::bad_response,
              whole ? kMalformedMessage : kMalformedField);
}

void BackendH2Connection::on_data(Http2Stream& of, std::string_view data) {
  backend_stream(of).in_.append(data);
  wake(backend_stream(of));
}

void BackendH2Connection::on_content_end(Http2Stream& of) {
  backend_stream(of).body_ended_ = true;
  wake(backend_stream(of));
}

void BackendH2Connection::on_settings() {
  settings_seen_ = true;
  home_.note_tunnels(backend_, session_->peer_allows_connect());
  home_.note_room(backend_);  // there may be room for more streams now
  for (BackendH2Stream* stream : streams_) {
    if (stream->id() == 0) wake(*stream);  // the stream may wait for the SETTINGS, because of tunnels
  }
}

// RFC 9113 §6.8: streams above `last_id` were not and will not be processed. The others continue.
void BackendH2Connection::on_goaway(int32_t last_id) {
  draining_ = goaway_ = true;
  home_.count_goaway();
  for (BackendH2Stream* stream : streams_) {
    if (stream->id() == 0 || stream->id() > last_id) fail_stream(*stream, Failure::stream_refused, "GOAWAY");
  }
}

void BackendH2Connection::write_head(Http2Stream& of, bool ends, ProxyTransport& transport) {
  BackendH2Stream& stream = backend_stream(of);
  if (!std::exchange(stream.head_sent_, true)) {
    send_head(session_->encoder(), transport, stream.id(), ends, stream.head_);
  } else {
    send_head(session_->encoder(), transport, stream.id(), ends, stream.request_trailers_);
  }
}

Http2Content BackendH2Connection::content_of(const Http2Stream& of) const {
  const auto& stream = static_cast<const BackendH2Stream&>(of);
  return {stream.out_.bytes(), stream.request_ended_, !stream.request_trailers_.empty()};
}

void BackendH2Connection::write_content(Http2Stream& of, size_t bytes, bool, ProxyTransport& transport) {
  BackendH2Stream& stream = backend_stream(of);
  while (bytes > 0) {
    const std::string_view piece = stream.out_.front().substr(0, bytes);
    transport.queue(piece);
    stream.out_.sent(piece.size());
    bytes -= piece.size();
  }
  if (stream.out_.bytes() == 0 && !stream.request_ended_) wake(stream);
}

void BackendH2Connection::on_closed(Http2Stream& of, Http2Error error) {
  BackendH2Stream& stream = backend_stream(of);
  stream.closed_ = true;
  wake(stream);
  // An application may close an open tunnel in this way, without END_STREAM.
  const bool open_tunnel = stream.tunnel_ && stream.head_ended_ && stream.response_->body == BodyKind::tunnel;
  if (open_tunnel && error == Http2Error::no_error) stream.body_ended_ = true;
  if (stream.head_ended_ && stream.body_ended_) return;
  if (error == Http2Error::refused_stream) {
    stream.fail_with(Failure::stream_refused, name(error));
  } else {
    stream.fail_with(stream.head_ended_ ? Failure::backend_truncated : Failure::stream_reset, name(error));
  }
}

}  // namespace tidegate::l7
