// SPDX-License-Identifier: Apache-2.0
#include "l7/h1/connection.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/common.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kGatheredChunkBytes = size_t{16} << 10;

// The first line, without its line end. At most one byte more than the log writes, so that the log can tell that a line
// was cut.
std::string_view request_line_of(std::string_view bytes) {
  bytes.remove_prefix(std::min(bytes.find_first_not_of("\r\n"), bytes.size()));
  return bytes.substr(0, std::min(bytes.find_first_of("\r\n"), kLoggedTextBytes + 1));
}

// Writes a head into space that the caller has measured.
class HeadText {
 public:
  HeadText(Arena& arena, size_t space) : begin_(arena.allocate(space)), out_(begin_) {}
  HeadText& put(std::string_view text) {
    if (!text.empty()) std::memcpy(out_, text.data(), text.size());
    out_ += text.size();
    return *this;
  }
  void status_line(uint16_t status, std::string_view reason) {
    const char digits[4] = {static_cast<char>('0' + status / 100), static_cast<char>('0' + status / 10 % 10),
                            static_cast<char>('0' + status % 10), ' '};
    put("HTTP/1.1 ").put({digits, sizeof digits}).put(reason).put("\r\n");
  }
  void fields(const FieldList& list) {
    for (const Field& field : list) put(field.written_name()).put(": ").put(field.value).put("\r\n");
  }
  static size_t space_for(const FieldList& list) {
    size_t space = 0;
    for (const Field& field : list) space += field.name.size() + field.value.size() + 4;
    return space;
  }
  std::string_view text() const { return {begin_, static_cast<size_t>(out_ - begin_)}; }

 private:
  char* const begin_;
  char* out_;
};

}  // namespace

std::unique_ptr<ClientProtocol> make_http1(ClientConnection& connection) {
  return std::make_unique<H1Connection>(connection);
}

void H1Connection::on_ready() {
  transport_.flush();
  switch (state_) {
    case State::waiting:
      return read_requests();
    case State::exchange:
      if (transport_.broken() || (body_ended_ && !tunnel_ && has_left())) return lose_client();
      watch_client();
      return transaction_->resume();
    case State::discarding:
      return discard_body();
    case State::closing:
      return finish_closing();
    case State::lingering:
      return linger();
  }
}

void H1Connection::on_timer() {
  if (state_ == State::waiting && head_begun_) {
    // The head did not arrive in time (RFC 9110 §15.5.9).
    return refuse({408, "The request did not arrive in the time it is given.", "header_timeout",
                   request_line_of(connection_.in().bytes())});
  }
  const bool sending = state_ == State::waiting || state_ == State::exchange || state_ == State::closing;
  if (sending && patience_.waiting()) return look_at_client();
  if (state_ == State::waiting) return connection_.close_in_order();
  connection_.close();
}

void H1Connection::drain() {
  draining_ = true;
  if (state_ != State::waiting) return;
  if (head_begun_) {
    connection_.timer().arm_after_ms(connection_.patience_for_head_ms(connection_.limits().header_timeout_ms));
  }
  if (head_begun_ || !connection_.in().empty()) return;
  state_ = State::closing;
  finish_closing();
}

void H1Connection::on_closing() {
  if (Transaction* transaction = std::exchange(transaction_, nullptr)) transaction->client_gone();
}

// A client that has left looks like one that has closed only its sending side, until something is sent to it.
bool H1Connection::has_left() const {
  return connection_.limits().answer_half_closed ? transport_.peer_gone() : transport_.peer_hung_up();
}

void H1Connection::lose_client() { connection_.close(); }

// --- requests

void H1Connection::read_requests() {
  if (reading_) return;
  reading_ = true;
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  while (state_ == State::waiting && !connection_.closed() && answers_taken()) {
    if (turn_requests_.left(now_ns, kHttp1TurnRequests) == 0) {
      transport_.yield();
      break;
    }
    if (connection_.in().empty() ? !fill_head() : !take_request()) break;
  }
  reading_ = false;
  if (state_ != State::waiting || connection_.closed()) return;
  if (!answers_taken()) return transport_.broken() ? connection_.close() : watch_client();
  if (transport_.drained()) connection_.note_idle();
  if (connection_.in().empty()) {
    connection_.in().release_if_empty();
    if (draining_) {
      state_ = State::closing;
      return finish_closing();
    }
    watch_client();
    if (transport_.drained()) {
      connection_.timer().arm_after_ms(connection_.patience_for_head_ms(connection_.limits().idle_timeout_ms));
    }
  } else if (!head_begun_) {
    head_begun_ = true;
    connection_.timer().arm_after_ms(connection_.patience_for_head_ms(connection_.limits().header_timeout_ms));
  }
}

// A client that pipelines must also read the answers. The next request is read only if the unsent bytes of earlier
// answers are within the bound. So there is always room for an answer of our own.
bool H1Connection::answers_taken() {
  if (transport_.waiting_bytes() >= kHttp1PipelinedUnsentBytes) transport_.flush();
  return !transport_.broken() && transport_.waiting_bytes() < kHttp1PipelinedUnsentBytes;
}

// Reads more of a head. Returns false if nothing came, or if the connection is closed.
bool H1Connection::fill_head() {
  switch (transport_.fill(connection_.in())) {
    case ProxyTransport::Status::ok:
      return true;
    case ProxyTransport::Status::blocked:
      return false;
    case ProxyTransport::Status::closed:
      if (!transport_.broken() && !transport_.drained()) {  // it may still take the rest of its answers
        state_ = State::closing;
        finish_closing();
        return false;
      }
      break;
    case ProxyTransport::Status::failed:
      break;
  }
  connection_.close();
  return false;
}

// Reads one request from the buffer. Returns false if the buffer has no whole head yet.
bool H1Connection::take_request() {
  InBuffer& in = connection_.in();
  const http1::Limits limits{.head_bytes = connection_.limits().head_bytes, .fields = connection_.limits().fields};
  http1::Head& head = connection_.worker().scratch_head();
  const http1::ParseResult parsed = http1::parse_request(in.bytes(), limits, scanned_, head);
  if (parsed.status == http1::Status::incomplete) return fill_head();
  Stats& stats = connection_.worker().stats();
  if (connection_.plain_on_tls()) {
    stats.count_refusal(MessageFault::plain_http);
    refuse(refusal_of(MessageFault::plain_http, request_line_of(in.bytes())));
    return false;
  }
  if (parsed.status == http1::Status::error) {
    stats.count_refusal(parsed.fault);
    const http1::FaultInfo& fault = http1::fault_info(parsed.fault);
    refuse({static_cast<uint16_t>(fault.status), fault.sentence, fault.name, request_line_of(in.bytes())});
    return false;
  }
  connection_.note_busy();
  PlanPin plan = connection_.pin_plan();
  Transaction& transaction = connection_.worker().take_transaction();
  const MessageFault fault = request_from_http1(head, transaction.arena(), transaction.request());
  std::string_view line;
  if (fault != MessageFault::none) line = transaction.arena().copy(request_line_of(in.bytes()));
  in.consume(parsed.consumed);
  scanned_ = 0;
  head_begun_ = false;
  connection_.timer().cancel();
  turn_requests_.use(1);
  state_ = State::exchange;
  transaction_ = &transaction;
  keep_alive_ = head.keep_alive;
  http10_ = head.minor_version == 0;
  begin_body(head);
  if (fault != MessageFault::none) {
    stats.count_refusal(fault);
    keep_alive_ = false;
    transaction.start_refused(*this, std::move(plan), refusal_of(fault, line));
    return true;
  }
  if (head.expect_continue && head.upgrade && body_ended_) {  // nobody calls want_body() before a tunnel
    transport_.queue("HTTP/1.1 100 Continue\r\n\r\n");
    transport_.flush();
  }
  transaction.start(*this, std::move(plan));
  return true;
}

// Refuses a request that could not be parsed. Only its first line is known.
void H1Connection::refuse(const Refusal& refusal) {
  connection_.note_busy();
  PlanPin plan = connection_.pin_plan();
  Transaction& transaction = connection_.worker().take_transaction();
  state_ = State::exchange;
  transaction_ = &transaction;
  head_begun_ = keep_alive_ = http10_ = expect_continue_ = false;
  body_framing_ = http1::Framing::until_close;  // so nothing that follows is read as a request
  body_ended_ = false;
  body_failure_ = Failure::none;
  taken_ = 0;
  response_begun_ = false;
  // The answer to HEAD has no body, even if only the method could be read.
  const std::string_view method = refusal.request_line.substr(0, refusal.request_line.find(' '));
  if (method.size() < refusal.request_line.size() && http1::is_token(method)) {
    transaction.request().method = transaction.arena().copy(method);
  }
  transaction.start_refused(*this, std::move(plan), refusal);
}

void H1Connection::begin_body(const http1::Head& head) {
  body_framing_ = head.framing;
  remaining_ = head.framing == http1::Framing::length ? head.content_length : 0;
  body_ended_ = head.framing == http1::Framing::none || (head.framing == http1::Framing::length && remaining_ == 0);
  body_failure_ = Failure::none;
  taken_ = 0;
  trailers_ = Trailers();
  expect_continue_ = head.expect_continue && !body_ended_;
  response_begun_ = false;
  if (head.framing == http1::Framing::chunked) chunks_ = http1::ChunkedDecoder();
}

std::string_view H1Connection::next_piece() {
  InBuffer& in = connection_.in();
  in.consume(std::exchange(taken_, 0));
  while (!body_ended_ && body_failure_ == Failure::none) {
    if (in.empty() && !fill_body()) break;
    if (body_framing_ == http1::Framing::length) {
      const std::string_view piece = in.bytes().substr(0, std::min<uint64_t>(remaining_, kBlockBytes));
      taken_ = piece.size();
      remaining_ -= piece.size();
      body_ended_ = remaining_ == 0;
      return piece;
    }
    if (body_framing_ == http1::Framing::until_close) {  // a tunnel
      taken_ = in.bytes().size();
      return in.bytes();
    }
    const http1::ChunkedDecoder::Step step = chunks_.decode(in.bytes());
    if (step.status == http1::Status::error) {
      connection_.worker().stats().count_refusal(step.fault);
      body_failure_ = Failure::bad_request;
      body_fault_ = http1::fault_info(step.fault).name;
      break;
    }
    body_ended_ = step.status == http1::Status::complete;
    if (body_ended_ && transaction_ != nullptr &&
        !trailers_from_http1(chunks_.trailers(), transaction_->arena(), trailers_)) {
      body_failure_ = Failure::bad_request;
      body_fault_ = name(MessageFault::too_many_fields);
      break;
    }
    if (!step.data.empty()) {
      taken_ = step.consumed;
      return step.data;
    }
    in.consume(step.consumed);
  }
  return {};
}

bool H1Connection::fill_body() {
  switch (transport_.fill(connection_.in())) {
    case ProxyTransport::Status::ok:
      return true;
    case ProxyTransport::Status::blocked:
      return false;
    case ProxyTransport::Status::closed:
      if (tunnel_) {
        body_ended_ = true;
        return false;
      }
      break;
    case ProxyTransport::Status::failed:
      break;
  }
  body_failure_ = Failure::client_gone;
  return false;
}

void H1Connection::want_body() {
  if (!expect_continue_) return;
  expect_continue_ = false;
  // Not if the body has begun to arrive or the answer has begun (RFC 9110 §10.1.1).
  if (body_ended_ || response_begun_ || !connection_.in().empty()) return;
  transport_.queue("HTTP/1.1 100 Continue\r\n\r\n");
  transport_.flush();
}

// --- answers

namespace {

std::string_view reason_of(uint16_t status, std::string_view written) {
  return written.empty() ? http1::reason_phrase(status) : written;
}

}  // namespace

void H1Connection::send_interim(const ResponseHead& interim) {
  if (http10_ || response_begun_ || !transport_.takes_more()) return;
  const std::string_view reason = reason_of(interim.status, interim.reason);
  HeadText out(transaction_->arena(), 64 + reason.size() + HeadText::space_for(interim.fields));
  out.status_line(interim.status, reason);
  out.fields(interim.fields);
  out.put("\r\n");
  transport_.queue(out.text());
}

// The value of the answer's Connection field (RFC 9112 §9, RFC 9110 §7.8). Empty if there is none.
std::string_view H1Connection::connection_options(const AnswerHead& head) const {
  if (head.body == BodyKind::tunnel) return "Upgrade";
  const bool offers_protocol = head.status == 426 && head.fields.find("upgrade") != nullptr;
  if (!keep_alive_) return offers_protocol ? "close, Upgrade" : "close";
  if (http10_) return offers_protocol ? "keep-alive, Upgrade" : "keep-alive";
  return offers_protocol ? "Upgrade" : "";
}

// Whether Content-Length is sent. An answer without a body has "Content-Length: 0", unless its status or the method
// implies that there is none (RFC 9110 §8.6). A backend that speaks HTTP/2 need not send the field.
bool H1Connection::says_length(const AnswerHead& head) const {
  if (head.status < 200 || head.status == 204) return false;
  if (head.content_length_known) return true;
  return head.body == BodyKind::none && head.status != 304 && !transaction_->request().is_head();
}

void H1Connection::send_head(const AnswerHead& head) {
  response_begun_ = true;
  chunked_response_ = head.body == BodyKind::unknown && !http10_;
  until_close_response_ = head.body == BodyKind::unknown && http10_;
  const bool removed = facts().listener == kNone || facts().certificate_fault != ClientCertificateFault::none;
  if (draining_ || removed || until_close_response_ || connection_.worker().draining()) keep_alive_ = false;
  if (head.body == BodyKind::tunnel) {
    body_framing_ = http1::Framing::until_close;
    tunnel_ = true;
    body_ended_ = keep_alive_ = false;
  }

  const std::string_view reason = reason_of(head.status, head.reason);
  HeadText out(transaction_->arena(), 160 + reason.size() + HeadText::space_for(head.fields));
  out.status_line(head.status, reason);
  out.fields(head.fields);
  if (chunked_response_) {
    out.put("Transfer-Encoding: chunked\r\n");
  } else if (says_length(head)) {
    const fmt::format_int length(head.content_length_known ? head.content_length : 0);
    out.put("Content-Length: ").put({length.data(), length.size()}).put("\r\n");
  }
  if (const std::string_view options = connection_options(head); !options.empty()) {
    out.put("Connection: ").put(options).put("\r\n");
  }
  out.put("\r\n");
  transport_.queue(out.text());
}

bool H1Connection::ready_for_piece() {
  // Bytes may have been queued without a flush. No event would come for them, so they are flushed before the answer is
  // "wait".
  if (!transport_.takes_more()) transport_.flush();
  return transport_.takes_more();
}

void H1Connection::send_piece(std::string_view piece) {
  if (!chunked_response_) {
    transport_.send(piece);
    return;
  }
  char header[24];
  transport_.queue({header, http1::encode_chunk_header(piece.size(), header)});
  // What follows a chunk, its end or that of the body, leaves in the same call of send(2) if the chunk waits for it.
  // The copy of a chunk of this size costs less than another call.
  if (piece.size() <= kGatheredChunkBytes) {
    transport_.queue(piece);
  } else {
    transport_.send(piece);
  }
  transport_.queue("\r\n");
}

// Trailers are sent only to a client that said that it takes them (RFC 9110 §6.5.1).
void H1Connection::end_response(const Trailers& trailers) {
  const bool takes_trailers = transaction_ != nullptr && transaction_->request().takes_trailers;
  if (chunked_response_) queue_last_chunk(transport_, takes_trailers ? trailers : Trailers());
  chunked_response_ = false;
}

void H1Connection::abort_response() {
  keep_alive_ = false;
  // A body that ends when the connection closes would look complete. Only a reset shows that it is not.
  if (until_close_response_ && transport_.is_open()) transport_.reset_on_close();
}

void H1Connection::on_transaction_over() {
  transaction_ = nullptr;
  transport_.flush();
  connection_.in().consume(std::exchange(taken_, 0));
  if (transport_.broken()) return connection_.close();
  // A client that never got "100 Continue" may send its body or leave it out. So the next bytes could be the body or a
  // request.
  const bool not_worth_reading = !body_ended_ && (expect_continue_ || remaining_ > kHttp1DiscardedBytes);
  if (!keep_alive_ || draining_ || body_failure_ != Failure::none || not_worth_reading) {
    state_ = State::closing;
    return finish_closing();
  }
  if (!body_ended_) {
    state_ = State::discarding;
    discarded_bytes_ = 0;
    connection_.timer().arm_after_ms(connection_.limits().idle_timeout_ms);
    return discard_body();
  }
  state_ = State::waiting;
  watch_client();
  read_requests();
}

void H1Connection::flush() {
  transport_.flush();
  watch_client();
}

// A backend may answer before it has the whole body. The rest of the body is read and dropped, up to a bound, so that
// the client can keep its connection.
void H1Connection::discard_body() {
  while (discarded_bytes_ <= kHttp1DiscardedBytes) {
    const std::string_view piece = next_piece();
    if (piece.empty()) break;
    discarded_bytes_ += piece.size();
  }
  connection_.in().consume(std::exchange(taken_, 0));
  if (body_failure_ == Failure::client_gone || transport_.broken()) return connection_.close();
  const bool given_up = body_failure_ != Failure::none || discarded_bytes_ > kHttp1DiscardedBytes;
  if (given_up || (body_ended_ && draining_)) {
    state_ = State::closing;
    return finish_closing();
  }
  if (!body_ended_) {
    if (transport_.drained()) connection_.note_idle();  // the client has its answer, so the connection may be closed
    return;
  }
  state_ = State::waiting;
  watch_client();
  read_requests();
}

void H1Connection::finish_closing() {
  if (transport_.broken()) return connection_.close();
  if (!transport_.drained()) return watch_client();
  const bool all_read = body_ended_ && connection_.in().empty() && !transport_.readable();
  transport_.shut_write();
  if (all_read) return connection_.close();
  state_ = State::lingering;
  connection_.note_idle();
  connection_.timer().arm_after_ms(kHttp1LingerMs);
  linger();
}

void H1Connection::linger() {
  InBuffer& in = connection_.in();
  for (;;) {
    lingered_bytes_ += in.bytes().size();
    in.consume(in.bytes().size());
    if (lingered_bytes_ > kHttp1LingerBytes) return connection_.close();
    const ProxyTransport::Status status = transport_.fill(in);
    if (status == ProxyTransport::Status::blocked) return;
    if (status != ProxyTransport::Status::ok) return connection_.close();
  }
}

// While bytes wait to be sent, a timer limits how long the client may take. Only bytes that it acknowledges renew the
// time. Bytes that it sends do not.
void H1Connection::watch_client() {
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  if (!transport_.drained()) {
    connection_.timer().arm_at_ns(patience_.wait(facts().patience, now_ns));
  } else {
    patience_.pause(now_ns);
    connection_.timer().cancel();
  }
}

void H1Connection::look_at_client() {
  const uint64_t now_ns = connection_.worker().loop().now_ns();
  const uint64_t end_ns = patience_.renew(facts().patience, transport_.bytes_acknowledged(), now_ns);
  if (end_ns > now_ns) return connection_.timer().arm_at_ns(end_ns);
  if (Transaction* transaction = std::exchange(transaction_, nullptr)) {
    transaction->client_gone(Failure::client_too_slow);
  } else {
    connection_.worker().stats().count_failure(Failure::client_too_slow);
  }
  transport_.reset_on_close();
  connection_.close();
}

}  // namespace tidegate::l7
