// SPDX-License-Identifier: Apache-2.0
// What a transaction does differently for a gRPC request: its own deadline, and failures reported as grpc-status.
#include "l7/exchange/grpc.h"
#include "l7/exchange/transaction.h"
#include "l7/worker.h"

namespace tidegate::l7 {

// The call's deadline is the client's. When it is over, no backend is charged.
void Transaction::begin_grpc() {
  exchange_.grpc = is_grpc(exchange_.request);
  if (exchange_.grpc) begin_call();
}

// Only if the route says so. From here on it is a gRPC call.
void Transaction::begin_grpc_web() {
  web_ = GrpcWeb::take(exchange_.request, arena_);
  if (!web_) return;
  exchange_.grpc = true;
  worker_.stats().grpc_web_calls.add();
  begin_call();
}

void Transaction::begin_call() {
  if (const std::optional<uint64_t> timeout_ns = grpc_timeout_ns(exchange_.request)) {
    const uint64_t left_ns = std::min(*timeout_ns, UINT64_MAX - exchange_.timing.started_ns - 1);
    exchange_.timing.call_deadline_ns = exchange_.timing.started_ns + left_ns;
  }
}

// The time left until the deadline, as text for the backend. Empty if there is no deadline.
std::string_view Transaction::grpc_time_left() {
  if (exchange_.timing.call_deadline_ns == UINT64_MAX) return {};
  const uint64_t now_ns = worker_.loop().now_ns();
  const uint64_t left_ns = exchange_.timing.call_deadline_ns - std::min(now_ns, exchange_.timing.call_deadline_ns);
  char* const text = arena_.allocate(kGrpcTimeoutBytes);
  return {text, write_grpc_timeout(left_ns, text)};
}

// An answer of trailers alone: 200, one header block, the end of the stream.
Step Transaction::answer_grpc(Failure failure) {
  FieldList& fields = exchange_.response.fields;
  fields.add({"content-type", web_ ? web_->content_type() : "application/grpc", FieldKind::other});
  fields.add({"grpc-status", grpc_status_of(failure), FieldKind::other});
  fields.add({"grpc-message", info(failure).sentence, FieldKind::other});
  exchange_.outcome.status = 200;
  return Step::answer;
}

// The answer has begun. It ends with one of our statuses instead of a reset, so that the client learns why.
void Transaction::end_grpc(Failure failure) {
  Trailers trailers;
  trailers.add(arena_, {"grpc-status", grpc_status_of(failure), FieldKind::other});
  trailers.add(arena_, {"grpc-message", info(failure).sentence, FieldKind::other});
  if (!web_) return client_->end_response(trailers);
  if (web_->ends_with_trailers()) send_web_piece(GrpcWeb::trailer_frame(trailers));
  client_->end_response();
}

// The next bytes of the request's body, as the backend gets them.
std::string_view Transaction::next_web_piece() {
  for (;;) {
    const std::string_view piece = client_->next_piece();
    if (piece.empty()) return piece;
    const std::string_view made = web_->to_backend(piece);
    if (!made.empty() || web_->broken(false)) return made;
  }
}

void Transaction::send_web_piece(std::string_view bytes) {
  while (!bytes.empty()) {
    const std::string_view part = bytes.substr(0, GrpcWeb::kMostBytes);
    client_->send_piece(web_->to_client(part));
    bytes.remove_prefix(part.size());
  }
}

// The backend's answer has ended. The client gets its trailers when it has room.
Step Transaction::end_grpc_web() {
  if (web_->ends_with_trailers()) {
    if (!client_->ready_for_piece()) {
      wait_for_nothing();
      return expired() ? fail(own_time_over()) : Step::suspend;
    }
    send_web_piece(GrpcWeb::trailer_frame(backend_->trailers()));
  }
  client_->end_response();
  return Step::log;
}

}  // namespace tidegate::l7
