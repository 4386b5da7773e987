// SPDX-License-Identifier: Apache-2.0
// Bodies that wait in memory between a slow client and the backend (pool keys buffer_request, buffer_response): the
// backend gets a request only when its body is complete, and is free before the client has read the answer.
#include <algorithm>

#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/policy/json_change.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

// The most bytes of a request's body that are buffered: the bound of the pool or of a policy.
uint64_t most_of_request(const Exchange& exchange) {
  const uint64_t of_policy = exchange.request_json == nullptr ? 0 : exchange.request_json->most();
  return std::max<uint64_t>(exchange.pool->config().buffer_request_bytes, of_policy);
}

}  // namespace

// gRPC messages must reach the backend at once, and a tunnel has no end to wait for.
bool Transaction::buffers_request() {
  const RequestHead& request = exchange_.request;
  const uint64_t most = most_of_request(exchange_);
  if (most == 0 || request.body == BodyKind::none || exchange_.grpc || !request.upgrade.empty()) return false;
  if (request.body != BodyKind::known || request.content_length <= most) return true;
  worker_.stats().requests_unbuffered.add();
  return false;
}

Step Transaction::buffer() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  client_->want_body();
  const uint64_t most = most_of_request(exchange_);
  for (int pieces = 0; request_buffer_.has_room(most) || client_->body_ended(); ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      return Step::suspend;
    }
    const std::string_view piece = client_->next_piece();
    if (piece.empty() && client_->body_ended()) return end_buffer();
    if (piece.empty()) {
      if (const Failure failure = client_->body_failure(); failure != Failure::none) return fail(failure);
      return await_body();
    }
    exchange_.outcome.request_bytes += piece.size();
    if (exchange_.outcome.request_bytes > exchange_.facts.max_body_bytes) return fail(Failure::body_too_large);
    request_buffer_.append(piece);
  }
  if (exchange_.request_json != nullptr) {
    failure_detail_ = name(policy::JsonFault::body_too_large);
    return fail(Failure::body_too_large);
  }
  // The body is larger than the bound, or there is no memory for it. The buffered part is sent first, the rest as it
  // comes.
  worker_.stats().requests_unbuffered.add();
  return to_lookup();
}

// The body is complete. So its length is known, unless trailers follow it: HTTP/1 has them only in a chunked body.
Step Transaction::end_buffer() {
  worker_.stats().requests_buffered.add();
  exchange_.body_at_hand = true;
  RequestHead& request = exchange_.request;
  if (client_->trailers().empty()) {
    request.body = request_buffer_.bytes() == 0 ? BodyKind::none : BodyKind::known;
    request.content_length = request_buffer_.bytes();
  }
  return to_lookup();
}

Step Transaction::to_lookup() {
  exchange_.patience.pause(worker_.loop().now_ns());
  wait_for_nothing();
  return Step::lookup;
}

// Takes what the backend has sent, up to the bound, and gives the client what it reads. Returns true if the backend
// sent something.
bool Transaction::pump_buffered_response() {
  const uint64_t most = exchange_.pool->config().buffer_response_bytes;
  bool moved = false;
  for (int pieces = 0;; ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      break;
    }
    if (send_buffered_piece()) continue;
    if (!response_buffer_.has_room(most)) break;
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) {
      const bool pauses = response_buffer_.bytes() == 0 && !backend_->response_ended();
      if (pauses && client_->ready_for_piece()) flush_content();
      break;
    }
    moved = true;
    if (response_buffer_.bytes() == 0 && client_->ready_for_piece()) {
      send_content(piece, backend_->response_ended());
    } else {
      response_buffer_.append(piece);
    }
  }
  return moved;
}

// Returns false if nothing waits, or if the client takes nothing now.
bool Transaction::send_buffered_piece() {
  if (response_buffer_.bytes() == 0 || !client_->ready_for_piece()) return false;
  const std::string_view piece = response_buffer_.piece_at(0);
  send_content(piece);
  response_buffer_.drop(piece.size());
  return true;
}

// The backend has finished. Its connection is free for others while the client reads.
Step Transaction::leave_backend() {
  exchange_.answer_trailers = backend_->trailers();
  worker_.stats().responses_buffered.add();
  release_backend(true);
  return Step::rest;
}

Step Transaction::rest() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  for (int pieces = 0; send_buffered_piece(); ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      return Step::suspend;
    }
  }
  if (response_buffer_.bytes() == 0) {
    end_content(exchange_.answer_trailers);
    return Step::log;
  }
  wait_for_nothing();  // the client's connection watches the client's own stall
  return expired() ? fail(own_time_over()) : Step::suspend;
}

}  // namespace tidegate::l7
