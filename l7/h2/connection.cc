// SPDX-License-Identifier: Apache-2.0
#include "l7/h2/connection.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {

std::unique_ptr<ClientProtocol> make_http2(ClientConnection& connection) {
  return std::make_unique<H2Connection>(connection);
}

H2Connection::H2Connection(ClientConnection& connection)
    : connection_(connection),
      transport_(connection.transport()),
      session_(Http2Session::Role::server, *this,
               {{SettingsId::enable_connect_protocol, 1},  // RFC 8441: WebSockets
                {SettingsId::max_concurrent_streams, kHttp2MaxStreams},
                {SettingsId::initial_window_size, kHttp2StreamWindowBytes},
                {SettingsId::max_header_list_size, static_cast<uint32_t>(connection.limits().head_bytes)}},
               kHttp2ConnectionWindowBytes),
      windows_(connection.worker().memory()) {
  note_progress();
}

void H2Connection::on_ready() {
  if (pumping_) return;
  transport_.flush();
  pump();
}

// Answers of several streams that backends gave in one round are sent in one write.
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
      for (size_t turns = awake_.size(); turns > 0; --turns) {
        H2Stream* const stream = awake_.take();
        if (stream == nullptr) break;
        if (stream->begun_ && stream->transaction_ != nullptr) {
          connection_.worker().resume_later(*stream->transaction_);
        } else {
          wake(*stream);
        }
      }
    }
    resume_awake();
    if (connection_.facts().certificate_fault != ClientCertificateFault::none) drain();
    send_frames();
    if (awake_.empty()) break;
  }
  pumping_ = false;
  if (connection_.closed()) return;
  if (sent_away_) return linger();
  // After the first GOAWAY of a drain, requests are accepted until the second one, even if none is in progress.
  const bool may_ask = draining_ && !last_said_;
  const bool over = !may_ask && session_.over();
  if (transport_.broken()) return connection_.close();
  if (over && transport_.drained()) return connection_.close_in_order();
  if (streams_.size() == unfinished_heads_ && transport_.drained()) connection_.note_idle();
  watch_client();
}

// Reads only while our own frames leave, so that acknowledgements do not pile up.
void H2Connection::receive() {
  InBuffer& in = connection_.in();
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  conduct_.refill(now_ns);
  while (transport_.drained()) {
    if (in.empty()) {
      const ProxyTransport::Status status = transport_.fill(in);
      if (status == ProxyTransport::Status::blocked) break;
      if (status != ProxyTransport::Status::ok) return connection_.close();
    }
    const uint64_t most = turn_frames_.left(now_ns, kHttp2TurnFrames);
    uint64_t left = most;
    const size_t bytes = walk_.next(in.bytes(), left, conduct_);
    turn_frames_.use(most - left);
    if (bytes == 0) {
      transport_.yield();
      break;
    }
    const Http2Session::Stop stop = session_.receive(in.bytes().substr(0, bytes));
    in.consume(bytes);
    if (stop != Http2Session::Stop::none) return send_away_for(stop);
    send_frames();
    if (const Http2Fault fault = conduct_.fault(); fault != Http2Fault::none) {
      return send_away(Http2Error::enhance_your_calm, fault);
    }
  }
  in.release_if_empty();
}

void H2Connection::send_frames() {
  for (;;) {
    session_.send(transport_, kHttp2GatheredBytes);
    const bool more = transport_.waiting_bytes() >= kHttp2GatheredBytes;
    transport_.flush();
    if (!more || !transport_.drained()) return;
  }
}

void H2Connection::resume_awake() {
  // Resuming one stream may close another, which then takes itself off the list.
  for (size_t turns = awake_.size(); turns > 0; --turns) {
    H2Stream* const stream = awake_.take();
    if (stream == nullptr) return;
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
  std::string line;
  transaction.start_refused(stream, std::move(plan), refuse(stream, line));
}

// Counts a refused request. `line` holds what the refusal refers to.
Refusal H2Connection::refuse(H2Stream& stream, std::string& line) {
  connection_.worker().stats().count_refusal(stream.fault_);
  line = fmt::format("{} {} HTTP/2", stream.transaction_->request().method,
                     stream.builder_.target().substr(0, kLoggedTextBytes + 1));
  return refusal_of(stream.fault_, line);
}

// A block that is too large is answered with 431. But by then each of its fields has been decoded and checked. So there
// is a second limit, at which the connection ends.
bool H2Connection::may_go_on() const {
  return session_.block_bytes() <= connection_.limits().head_bytes + kHttp2RefusedHeaderBytes;
}

void H2Connection::close_stream(H2Stream* stream) {
  session_.forget(*stream);
  if (!stream->head_ended_) --unfinished_heads_;
  awake_.remove(*stream);
  if (stream->out_.bytes() > 0) --answers_waiting_;
  // Bytes that nobody will read still count against the connection's window.
  session_.take_of_connection(stream->in_.bytes());
  windows_.forget(session_, stream->window_);
  if (stream->transaction_ != nullptr && !stream->begun_ && stream->gone_why_ == Failure::bad_request) {
    stream->begun_ = true;
    if (stream->fault_ == MessageFault::none) stream->fault_ = stream->body_fault_;
    std::string line;
    const Refusal refusal = refuse(*stream, line);
    std::exchange(stream->transaction_, nullptr)->log_refused(*stream, connection_.pin_plan(), refusal);
  }
  Transaction* transaction = std::exchange(stream->transaction_, nullptr);
  if (transaction != nullptr) {
    if (stream->begun_) {
      if (stream->gone_why_ == Failure::bad_request) connection_.worker().stats().count_refusal(stream->body_fault_);
      transaction->client_gone(stream->gone_why_);
    } else {
      if (stream->head_ended_) connection_.worker().stats().http2_cancelled.add();
      transaction->abandon();
    }
  } else if (stream->gone_why_ == Failure::client_too_slow) {
    connection_.worker().stats().count_failure(Failure::client_too_slow);
  }
  note_progress();
  const size_t place = stream->place_;
  std::swap(streams_[place], streams_.back());
  streams_[place]->place_ = place;
  streams_.pop_back();
}

void H2Connection::drain() {
  if (draining_ || sent_away_) return;
  // RFC 9113 §6.8: the first GOAWAY refuses nothing yet. A round trip later, the second one names the last request. So
  // all requests that the client had sent before it read the first one are answered.
  draining_ = true;
  session_.announce_goaway();
  session_.ping(kHttp2DrainPing);
  say_last_at_ns_ = connection_.worker().loop().now_ns() + kHttp2GoawayWaitMs * kNsPerMs;
  look_at_ns(say_last_at_ns_);
  pump();
}

void H2Connection::say_last_request() {
  if (!draining_ || last_said_) return;
  last_said_ = true;
  session_.goaway();
}

void H2Connection::on_closing() {
  while (!streams_.empty()) close_stream(streams_.back().get());
}

void H2Connection::give_up() {
  session_.end(Http2Error::no_error);
  send_frames();
  if (transport_.drained()) return connection_.close_in_order();
  connection_.close();
}

void H2Connection::send_away(Http2Error error, Http2Fault why) {
  if (sent_away_) return;
  sent_away_ = true;
  connection_.worker().stats().count_flood(why);
  connection_.charge_address(kFloodCost);
  while (!streams_.empty()) close_stream(streams_.back().get());
  char frame[kFrameHeadBytes + 8];  // RFC 9113 §6.8
  char* const payload = put_frame_head(frame, {8, FrameType::goaway, 0, 0});
  put_u32(put_u32(payload, static_cast<uint32_t>(session_.last_stream())), static_cast<uint32_t>(error));
  // Does not wait for a client that does not even read.
  if (!transport_.drained() || !transport_.queue({frame, sizeof frame})) return connection_.close();
  transport_.shut_write();
  connection_.timer().arm_after_ms(kHttp1LingerMs);
}

void H2Connection::send_away_for(Http2Session::Stop stop) {
  switch (stop) {
    case Http2Session::Stop::header_bytes:
      return send_away(Http2Error::enhance_your_calm, Http2Fault::header_bytes);
    case Http2Session::Stop::bad_preface:
      return send_away(Http2Error::protocol_error, Http2Fault::protocol);
    default:
      return send_away(Http2Error::enhance_your_calm, Http2Fault::library);
  }
}

// If input is unread at the close, the kernel sends a reset, which may overtake the GOAWAY.
void H2Connection::linger() {
  InBuffer& in = connection_.in();
  for (;;) {
    lingered_bytes_ += in.bytes().size();
    in.consume(in.bytes().size());
    if (lingered_bytes_ > kHttp1LingerBytes) return connection_.close();
    const ProxyTransport::Status status = transport_.fill(in);
    if (status == ProxyTransport::Status::blocked) break;
    if (status != ProxyTransport::Status::ok) return connection_.close();
  }
  in.release_if_empty();
}

}  // namespace tidegate::l7
