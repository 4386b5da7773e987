// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/h2_stream.h"

#include <charconv>

#include "core/limits.h"
#include "l7/backend/h2_connection.h"
#include "l7/h2/headers_frame.h"
#include "l7/h2/sent_fields.h"
#include "l7/limits.h"

namespace tidegate::l7 {

static_assert(sizeof(BackendH2Stream) <= SessionBlocks::kMostBytes);

BackendH2Stream::BackendH2Stream(BackendH2Connection& connection, BlockPool& blocks)
    : connection_(&connection), in_(blocks), out_(blocks, OutQueue::First::small) {}

BackendH2Stream::~BackendH2Stream() {
  if (connection_ == nullptr) return;
  if (connected()) connection_->session_->leave(*this);  // as in leave()
  connection_->forget(*this);
}

uint64_t BackendH2Stream::tcp_connected_ns() const {
  return connection_ == nullptr ? 0 : connection_->tcp_connected_ns();
}

bool BackendH2Stream::connected() const { return connection_ != nullptr && connection_->session_ != nullptr; }

Tunnels BackendH2Stream::tunnels() const {
  if (!connected() || !connection_->settings_seen_) return Tunnels::unknown;
  return connection_->session_->peer_allows_connect() ? Tunnels::by_connect : Tunnels::none;
}

Acceptance BackendH2Stream::acceptance() const {
  return connection_ == nullptr ? Acceptance::unknown : connection_->acceptance();
}

bool BackendH2Stream::anything_received() const {
  if (heard_ || connection_ == nullptr || connection_->closed_) return heard_;
  return connection_->socket_->transport().bytes_read() != read_before_;
}

void BackendH2Stream::begin(const BackendRequest& request, Arena& arena, ResponseHead& response) {
  arena_ = &arena;
  response_ = &response;
  response_->fields.clear();
  to_head_ = request.request.is_head();
  tunnel_ = !request.request.upgrade.empty();
  reused_ = connection_->begun_++ > 0;
  read_before_ = connection_->socket_->transport().bytes_read();
  begun_ns_ = connection_->socket_->loop().now_ns();

  if (connection_->goaway_) return fail_with(Failure::stream_refused, "GOAWAY");
  const bool secure = connection_->socket_->transport().tls() != nullptr;
  head_ = compose_http2_fields(request, secure ? "https" : "http", arena);
  if (!HeadersFrame::fits(text_bytes_of(head_), head_.size())) {
    return fail_with(Failure::stream_reset, name(Http2Error::internal_error));
  }
  const bool has_body = tunnel_ || request.request.body != BodyKind::none;
  const std::string_view method = tunnel_ ? "CONNECT" : request.request.method;
  if (!connection_->session_->open(*this, method, has_body)) {
    connection_->draining_ = true;
    return fail_with(Failure::stream_refused, "no more stream ids");
  }
  connection_->send_at_round_end();
}

bool BackendH2Stream::ready_for_piece() {
  return connected() && id() > 0 && !closed_ && !request_ended_ && out_.bytes() == 0;
}

void BackendH2Stream::send_piece(std::string_view piece) {
  if (!out_.append(piece)) return fail_with(Failure::backend_closed, "a piece is too large");
  connection_->session_->resume(*this);
  connection_->send_at_round_end();
}

void BackendH2Stream::end_request(const Trailers& trailers) {
  if (tunnel_) return;
  request_trailers_ = trailers;
  end_content();
}

void BackendH2Stream::end_tunnel() { end_content(); }

// END_STREAM follows what is in out_.
void BackendH2Stream::end_content() {
  request_ended_ = true;
  if (!connected() || id() == 0 || closed_) return;
  connection_->session_->resume(*this);
  connection_->send_at_round_end();
}

void BackendH2Stream::flush() {
  const bool sends_already = connection_ == nullptr || connection_->awaits_round_end || connection_->pumping_;
  if (sends_already || !connected()) return;
  if (connection_->session_->wants_to_send()) connection_->send_at_round_end();
}

std::string_view BackendH2Stream::next_piece() {
  if (taken_ > 0) {
    in_.sent(taken_);
    if (connected()) {
      connection_->session_->take(*this, taken_);
      if (!closed_ && window_.take(taken_) && in_.bytes() == 0 && !body_ended_) connection_->widen(*this);
      connection_->send_at_round_end();
    }
  }
  const std::string_view piece = in_.front();
  taken_ = piece.size();
  return piece;
}

void BackendH2Stream::accept_head() {
  head_ready_ = false;
  accepted_ = true;
  if (tunnel_ && response_->body != BodyKind::tunnel) end_content();  // the backend does not open the tunnel
}

// --- what the backend sends; called by the connection

void BackendH2Stream::add_field(const Http2Field& field) {
  const std::string_view value = field.value;
  header_bytes_ += field.name.size() + value.size() + 32;  // as RFC 9113 §6.5.2 counts
  if (header_bytes_ > kBackendHttp2HeaderBytes) fault_ = MessageFault::too_large;
  if (fault_ != MessageFault::none) return;
  if (head_ended_) {
    fault_ = trailer_from_http2(field, *arena_, trailers_);
    return;
  }
  if (field.traits.pseudo == PseudoName::status) {
    std::from_chars(value.data(), value.data() + value.size(), response_->status);
    return;
  }
  const FieldKind kind = field.traits.kind;
  if (kind == FieldKind::content_length) {
    const char* const end = value.data() + value.size();
    response_->has_content_length = std::from_chars(value.data(), end, response_->content_length).ptr == end;
    return;
  }
  // Most hop-by-hop fields do not come here: a response with such a field is malformed (RFC 9113 §8.2.2).
  if (kind == FieldKind::hop_by_hop || kind == FieldKind::connection) return;
  const std::string_view name = field.static_name != 0 ? field.name : arena_->copy(field.name);
  if (!response_->fields.add({name, arena_->copy(value), kind, false})) fault_ = MessageFault::too_many_fields;
}

bool BackendH2Stream::end_block(bool end_of_stream) {
  if (head_ended_) {  // trailers
    if (fault_ != MessageFault::none) fail_with(Failure::bad_response, name(fault_));
    return fault_ == MessageFault::none;
  }
  if (response_->status < 200 && fault_ == MessageFault::none) return end_interim();
  head_ended_ = head_ready_ = true;
  header_bytes_ = 0;
  set_body(end_of_stream);
  return fault_ == MessageFault::none;
}

bool BackendH2Stream::end_interim() {
  if (++interim_ > kInterimAnswers) {
    fail_with(Failure::too_many_interim);
    return false;
  }
  if (response_->status != 100 && user_ != nullptr) user_->on_interim(*response_);
  response_->fields.clear();
  response_->has_content_length = false;
  return true;
}

void BackendH2Stream::set_body(bool end_of_stream) {
  ResponseHead& head = *response_;
  head.reason = {};
  if (tunnel_ && head.status / 100 == 2) {  // RFC 9110 §9.3.6
    head.body = BodyKind::tunnel;
    head.has_content_length = false;
  } else if (head.status == 205) {  // RFC 9110 §15.3.6: no content. If the backend sends some, it is dropped.
    head.body = BodyKind::none;
    head.has_content_length = true;
    head.content_length = 0;
  } else if (to_head_ || end_of_stream || head.status == 204 || head.status == 304) {
    head.body = BodyKind::none;
  } else {
    head.body = head.has_content_length && head.content_length > 0 ? BodyKind::known : BodyKind::unknown;
  }
}

void BackendH2Stream::fail_with(Failure failure, std::string_view detail) {
  if (failure_ != Failure::none) return;
  failure_ = failure;
  failure_detail_ = detail;
}

void BackendH2Stream::end_use(const Pool& pool) {
  user_ = nullptr;
  if (successor_) give_back(std::move(successor_), pool);
  if (BackendH2Connection* const connection = std::exchange(connection_, nullptr)) {
    connection->leave(*this, pool.keepalive_timeout_ms);
  }
  delete this;
}

}  // namespace tidegate::l7
