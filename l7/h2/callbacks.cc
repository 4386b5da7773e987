// SPDX-License-Identifier: Apache-2.0
// What the session of a client's connection tells. It is only recorded here: nothing receives or sends.
#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/h2/connection.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

H2Stream& client_stream(Http2Stream& stream) { return static_cast<H2Stream&>(stream); }

}  // namespace

Http2Stream& H2Connection::open_stream(int32_t) {
  Worker& worker = connection_.worker();
  std::unique_ptr<H2Stream> made(new (worker.session_blocks()) H2Stream(*this));
  H2Stream& stream = *made;
  stream.place_ = streams_.size();
  streams_.push_back(std::move(made));
  if (unfinished_heads_++ == 0) {
    head_begun_ns_ = worker.loop().now_ns();
    look_at_ns(head_begun_ns_ + connection_.limits().header_timeout_ms * kNsPerMs);
  }
  stream.transaction_ = &worker.take_transaction();
  stream.builder_.start(stream.transaction_->arena(), stream.transaction_->request(), connection_.limits().head_bytes,
                        connection_.limits().fields);
  return stream;
}

bool H2Connection::on_field(Http2Stream& of, const Http2Field& field) {
  if (!may_go_on()) return false;
  H2Stream& stream = client_stream(of);
  if (stream.fault_ != MessageFault::none) return true;
  if (stream.head_ended_) {
    add_trailer(stream, field);
  } else {
    stream.fault_ = stream.builder_.add(field);
  }
  return true;
}

// Trailers that come after the request was answered are dropped.
void H2Connection::add_trailer(H2Stream& stream, const Http2Field& field) {
  if (stream.transaction_ == nullptr || stream.response_ended_) return;
  const MessageFault fault = trailer_from_http2(field, stream.transaction_->arena(), stream.trailers_);
  if (fault != MessageFault::none) stream.body_fault_ = fault;
}

// A field that HTTP/1 would refuse is refused here too, and not repaired.
bool H2Connection::on_bad_field(Http2Stream& of) {
  H2Stream& stream = client_stream(of);
  if (!stream.head_ended_) stream.fault_ = MessageFault::bad_field;
  return may_go_on();
}

// close_stream() logs it when the reset was sent.
void H2Connection::on_malformed(Http2Stream& of, bool whole) {
  H2Stream& stream = client_stream(of);
  MessageFault& fault = stream.head_ended_ ? stream.body_fault_ : stream.fault_;
  // All fields are there, and something is missing or does not fit: finish() finds out what.
  if (whole && !stream.head_ended_ && fault == MessageFault::none) fault = stream.builder_.finish(false);
  if (fault == MessageFault::none) fault = MessageFault::malformed;
  if (stream.head_ended_) return;
  stream.head_ended_ = true;
  --unfinished_heads_;
}

void H2Connection::on_head(Http2Stream& of, bool ends) {
  H2Stream& stream = client_stream(of);
  if (ends) stream.body_ended_ = true;
  if (!stream.head_ended_) {
    stream.head_ended_ = true;
    stream.head_ends_stream_ = ends;
    --unfinished_heads_;
    note_progress();
  }
  wake(stream);
}

void H2Connection::on_data(Http2Stream& of, std::string_view data) {
  H2Stream& stream = client_stream(of);
  stream.received_ += data.size();
  // Nobody needs the data, but it counts against the connection's window.
  if (stream.held_reset_.held()) return session_.take_of_connection(data.size());
  if (stream.transaction_ == nullptr) return session_.take(stream, data.size());
  stream.in_.append(data);
  note_progress();
  conduct_.on_content_received();
  wake(stream);
}

void H2Connection::on_content_end(Http2Stream& of) {
  client_stream(of).body_ended_ = true;
  wake(client_stream(of));
}

// CVE-2023-44487: a limit on resets per connection does not help against a client that opens many connections.
void H2Connection::on_reset_received() { connection_.charge_address(1); }

void H2Connection::on_pong(std::string_view data) {
  if (data == kHttp2DrainPing) say_last_request();
}

void H2Connection::on_connection_error(Http2Error) { connection_.worker().stats().count_flood(Http2Fault::protocol); }

void H2Connection::write_head(Http2Stream& of, bool ends, ProxyTransport& transport) {
  H2Stream& stream = client_stream(of);
  stream.heads_.send_first(session_.encoder(), transport, stream.id(), ends);
  if (ends && !stream.body_ended_) stream.leave_rest();
}

Http2Content H2Connection::content_of(const Http2Stream& of) const {
  const auto& stream = static_cast<const H2Stream&>(of);
  return {stream.out_.bytes(), stream.response_ended_, stream.has_trailers_};
}

void H2Connection::write_content(Http2Stream& of, size_t bytes, bool ends, ProxyTransport& transport) {
  H2Stream& stream = client_stream(of);
  note_progress();
  stream.sent_ += bytes;
  sent_ += bytes;
  conduct_.on_content_sent(bytes, bytes >= 1024 || stream.out_.bytes() == bytes);
  const bool waited = stream.out_.bytes() > 0;
  while (bytes > 0) {
    const std::string_view piece = stream.out_.front().substr(0, bytes);
    transport.queue(piece);  // frames are sent together, because a write for each costs more than a copy
    stream.out_.sent(piece.size());
    bytes -= piece.size();
  }
  if (waited && stream.out_.bytes() == 0) --answers_waiting_;
  if (stream.out_.bytes() == 0 && !stream.response_ended_) wake(stream);
  watch_stream(stream);
  if (ends && !stream.body_ended_) stream.leave_rest();
}

// A reset that the client's error made us send counts like the client's own reset (CVE-2025-8671). A stream above the
// limit costs only its frame, because a client may open many before it has read our SETTINGS.
void H2Connection::on_reset_sent(Http2Stream& of, Http2Error error) {
  H2Stream& stream = client_stream(of);
  if (error == Http2Error::no_error || stream.backend_broke_) return;
  if (error == Http2Error::protocol_error) {
    stream.gone_why_ = Failure::bad_request;
    // on_malformed() handles the faults of heads and trailers.
    const bool of_body = stream.fault_ == MessageFault::none && stream.body_fault_ == MessageFault::none;
    if (of_body) stream.body_fault_ = MessageFault::bad_content_length;
  }
  conduct_.on_reset();
  connection_.charge_address(1);
}

void H2Connection::on_closed(Http2Stream& of, Http2Error) { close_stream(&client_stream(of)); }

}  // namespace tidegate::l7
