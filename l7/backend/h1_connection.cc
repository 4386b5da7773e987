// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/h1_connection.h"

#include "core/limits.h"
#include "l7/backend/connections.h"

namespace tidegate::l7 {
namespace {

constexpr http1::Limits kResponseLimits{.head_bytes = kBlockBytes - 1024, .fields = http1::kMaxFields};

}  // namespace

BackendH1Connection::BackendH1Connection(std::unique_ptr<BackendSocket> socket, BackendConnections& home,
                                         uint32_t backend)
    : socket_(std::move(socket)),
      home_(home),
      backend_(backend),
      keepalive_(socket_->loop(), [this] { home_.drop_idle(this); }) {
  socket_->set_owner(*this);
}

void BackendH1Connection::set_user(User& user) {
  user_ = &user;
  keepalive_.cancel();
  state_ = State::in_use;
  ++exchanges_;
  read_before_ = socket_->transport().bytes_read();
  scanned_ = head_bytes_ = taken_ = 0;
  interim_ = 0;
  begun_ = request_ended_ = head_ready_ = response_ended_ = false;
}

void BackendH1Connection::begin(const BackendRequest& request, Arena& arena, ResponseHead& response) {
  arena_ = &arena;
  response_ = &response;
  begun_ = true;
  to_head_ = request.request.is_head();
  chunked_request_ = sends_chunked(request.request);
  trailers_ = Trailers();
  chunks_ = http1::ChunkedDecoder(kResponseLimits);
  socket_->transport().queue(compose_http1_head(request, arena));
}

// Between exchanges a backend can only say that it closes. An event may also be left over from the last exchange.
void BackendH1Connection::on_socket() {
  if (state_ == State::closed) return;
  if (state_ == State::idle) {
    if (!looks_alive()) home_.drop_idle(this);
    return;
  }
  if (begun_ && connected()) {
    flush();
    if (!head_ready_ && head_bytes_ == 0) read_head();
  }
  if (user_ != nullptr) user_->on_backend();
}

void BackendH1Connection::on_acceptance() {
  if (socket_->seen_acknowledged()) return home_.note_acknowledged(backend_);
  if (user_ != nullptr) user_->on_backend();
}

bool BackendH1Connection::ready_for_piece() {
  if (!connected()) return false;
  // Bytes that were only gathered must be flushed, because no event would come for them.
  if (!socket_->transport().takes_more()) socket_->transport().flush();
  return socket_->transport().takes_more();
}

void BackendH1Connection::send_piece(std::string_view piece) {
  if (!chunked_request_) {
    socket_->transport().send(piece);
    return;
  }
  char header[24];
  socket_->transport().queue({header, http1::encode_chunk_header(piece.size(), header)});
  socket_->transport().send(piece);
  socket_->transport().queue("\r\n");
}

void BackendH1Connection::end_request(const Trailers& trailers) {
  if (chunked_request_) queue_last_chunk(socket_->transport(), trailers);
  request_ended_ = true;
}

void BackendH1Connection::end_tunnel() {
  tunnel_ending_ = true;
  flush();
}

void BackendH1Connection::flush() {
  if (!connected()) return;
  socket_->transport().flush();
  if (!tunnel_ending_ || !socket_->transport().drained()) return;
  tunnel_ending_ = false;
  socket_->transport().shut_write();
}

void BackendH1Connection::read_head() {
  while (failure_ == Failure::none && fill()) {
    if (parse_head()) return;
  }
}

// Returns true if the head needs no more bytes: it is complete, or it is malformed.
bool BackendH1Connection::parse_head() {
  for (;;) {
    const http1::ParseResult parsed =
        http1::parse_response(socket_->in().bytes(), kResponseLimits, scanned_, to_head_, head_);
    if (parsed.status == http1::Status::incomplete) {
      if (socket_->in().bytes().size() < kResponseLimits.head_bytes) return false;
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
    if (head_.status != 100) pass_interim();
    socket_->in().consume(parsed.consumed);
    scanned_ = 0;
    if (socket_->in().empty()) return false;
  }
}

void BackendH1Connection::pass_interim() {
  ResponseHead interim;
  if (user_ == nullptr || response_from_http1(head_, to_head_, *arena_, interim) != MessageFault::none) return;
  user_->on_interim(interim);
}

MessageFault BackendH1Connection::take_head() { return response_from_http1(head_, to_head_, *arena_, *response_); }

void BackendH1Connection::accept_head() {
  head_ready_ = false;
  socket_->in().consume(head_bytes_);
  remaining_ = head_.framing == http1::Framing::length ? head_.content_length : 0;
  if (head_.status == 101) {
    head_.framing = http1::Framing::until_close;
    chunked_request_ = false;  // it belongs to the request that has ended
  }
  if (to_head_ || head_.framing == http1::Framing::none ||
      (head_.framing == http1::Framing::length && head_.content_length == 0)) {
    response_ended_ = true;
  }
}

std::string_view BackendH1Connection::next_piece() {
  socket_->in().consume(taken_);
  taken_ = 0;
  while (!response_ended_ && failure_ == Failure::none) {
    if (socket_->in().empty() && !fill()) break;
    if (head_.framing == http1::Framing::length) {
      const std::string_view piece = socket_->in().bytes().substr(0, std::min<uint64_t>(remaining_, kBlockBytes));
      taken_ = piece.size();
      remaining_ -= piece.size();
      response_ended_ = remaining_ == 0;
      return piece;
    }
    if (head_.framing == http1::Framing::until_close) {
      taken_ = socket_->in().bytes().size();
      return socket_->in().bytes();
    }
    const http1::ChunkedDecoder::Step step = chunks_.decode(socket_->in().bytes());
    if (step.status == http1::Status::error) {
      fail_with(Failure::bad_response, http1::fault_info(step.fault).name);
      break;
    }
    response_ended_ = step.status == http1::Status::complete;
    if (response_ended_ && !trailers_from_http1(chunks_.trailers(), *arena_, trailers_)) {
      response_ended_ = false;
      fail_with(Failure::bad_response, name(MessageFault::too_many_fields));
      break;
    }
    if (!step.data.empty()) {
      taken_ = step.consumed;
      return step.data;
    }
    socket_->in().consume(step.consumed);
  }
  return {};
}

bool BackendH1Connection::fill() {
  switch (socket_->transport().fill(socket_->in())) {
    case ProxyTransport::Status::ok:
      return true;
    case ProxyTransport::Status::blocked:
      return false;
    case ProxyTransport::Status::closed:
      if (head_bytes_ != 0 && !head_ready_ && head_.framing == http1::Framing::until_close) {
        response_ended_ = true;
        return false;
      }
      [[fallthrough]];
    case ProxyTransport::Status::failed:
      break;
  }
  fail_with(head_bytes_ != 0 ? Failure::backend_truncated : Failure::backend_closed);
  return false;
}

void BackendH1Connection::fail_with(Failure failure, std::string_view detail) {
  if (failure_ != Failure::none) return;
  failure_ = failure;
  failure_detail_ = detail;
}

bool BackendH1Connection::reusable() const {
  const ProxyTransport& transport = socket_->transport();
  return connected() && response_ended_ && request_ended_ && head_.keep_alive &&
         head_.framing != http1::Framing::until_close && head_.status != 101 &&
         taken_ == socket_->in().bytes().size() && transport.drained() && !transport.broken() &&
         !transport.peer_hung_up();
}

void BackendH1Connection::end_use(const Pool& pool) {
  user_ = nullptr;
  arena_ = nullptr;
  response_ = nullptr;
  home_.take_back(std::unique_ptr<BackendH1Connection>(this), pool);
}

void BackendH1Connection::rest(uint64_t timeout_ms) {
  InBuffer& in = socket_->in();
  in.consume(taken_);
  taken_ = 0;
  in.release_if_empty();
  state_ = State::idle;
  keepalive_.arm_after_ms(timeout_ms);
}

void BackendH1Connection::close() {
  state_ = State::closed;
  keepalive_.cancel();
  socket_->close();
}

}  // namespace tidegate::l7
