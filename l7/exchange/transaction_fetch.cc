// SPDX-License-Identifier: Apache-2.0
// The steps of a transaction that deal with a backend: choose, connect, exchange, deliver.
#include <algorithm>

#include "core/clock.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {

Step Transaction::choose() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (tries_ == 0) {
    if (wire_head_.empty()) wire_head_ = compose_wire_head(&fill_);
    pool_->runtime().retries.deposit(pool_->config().retry_budget);
  }
  if (const Failure over = own_time_over(); over != Failure::none) return fail(over);
  if (others_wait_first()) return Step::queue;
  return take_backend().value_or(Step::queue);
}

std::optional<Step> Transaction::take_backend() {
  const BackendPool::Choice choice = pool_->choose({.hash = pick_hash(),
                                                    .random = worker_.request_ids().random(),
                                                    .now_ns = worker_.loop().now_ns(),
                                                    .is_retry = tries_ > 0,
                                                    .tried = {tried_.data(), tried_count_},
                                                    .connections = &worker_.backends()});
  // A retry does not wait for the few backends that are left to it: those behind it may use the others.
  if (choice.full && tried_count_ > 0) return fail(last_failure_);
  if (choice.full) return std::nullopt;
  if (choice.member == nullptr) return fail(Failure::pool_down);
  if (!acquire_connection(*choice.member)) return std::nullopt;
  ++tries_;
  wait_at_most_ns(pool_->config().connect_timeout_ms * kNsPerMs);
  return Step::connect;
}

bool Transaction::acquire_connection(const PoolMember& member) {
  const Pool& config = pool_->config();
  // With an address of each family, the second try of a request goes to the other one.
  const IpAddress& address = member.config->addresses[tries_ % member.config->addresses.size()];
  const BackendPeer peer{
      {address, member.config->port}, plan_->pool_tls(route_->pool), config.tls_server_name, config.idle_timeout_ms};
  if (!fresh_only_) {
    backend_ = worker_.backends().take_idle(*member.runtime, peer, !request_.is_idempotent());
    if (backend_) worker_.stats().backend_reuses.add();
  }
  if (!backend_) {
    backend_ = worker_.backends().open(*member.runtime, peer, config.max_connections);
    if (!backend_) return false;
    worker_.stats().backend_connections.add();
  }
  member_ = &member;
  backend_name_ = member.config->name;
  failure_detail_.clear();
  member.runtime->in_flight.fetch_add(1, std::memory_order_relaxed);
  member.runtime->requests.fetch_add(1, std::memory_order_relaxed);
  pool_->runtime().in_flight.fetch_add(1, std::memory_order_relaxed);
  request_sent_ = request_.body == BodyKind::none;
  sent_ns_ = worker_.loop().now_ns();
  // A request without Host gets the host of the backend that was chosen.
  if (request_.authority.empty() && !background_) wire_head_ = compose_wire_head(&fill_);
  backend_->begin(*this, wire_head_, sends_chunked(request_), request_.is_head());
  if (request_sent_) backend_->end_request();
  return true;
}

uint64_t Transaction::pick_hash() const {
  if (pool_->config().policy != PoolPolicy::consistent_hash) return 0;
  return hash_for_pool(plan_->plan(), pool_->config(), request_, client_address_);
}

void Transaction::release_backend(bool keep) {
  if (member_ != nullptr) {
    member_->runtime->in_flight.fetch_sub(1, std::memory_order_relaxed);
    pool_->runtime().in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (keep) member_->runtime->note_success();
    member_ = nullptr;
  }
  if (!backend_) return;
  if (!backend_->failure_detail().empty()) failure_detail_ = backend_->failure_detail();
  worker_.backends().give_back(std::move(backend_), pool_->config());
}

Step Transaction::connect() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (backend_->failure() != Failure::none) return attempt_failed(backend_->failure());
  if (!backend_->connected()) {
    if (!expired()) return Step::suspend;
    const Failure over = own_time_over();
    return attempt_failed(over != Failure::none ? over : Failure::connect_timeout);
  }
  connected_ns_ = worker_.loop().now_ns();
  sent_ns_ = connected_ns_;
  wait_at_most_ns(backend_wait_ns());
  return Step::exchange;
}

// How long the backend may keep the exchange step waiting: for its answer when it has the whole request, else for the
// next bytes of the body to be taken.
uint64_t Transaction::backend_wait_ns() const {
  const Pool& config = pool_->config();
  return (request_sent_ ? config.first_byte_timeout_ms : config.idle_timeout_ms) * kNsPerMs;
}

Step Transaction::exchange() {
  if (nobody_waits()) return fail(Failure::client_gone);
  const bool moved = pump_request();
  if (backend_->head() != nullptr) return begin_response();
  if (backend_->failure() != Failure::none) return attempt_failed(backend_->failure());
  if (const Failure failure = request_body_failure(); failure != Failure::none) return fail(failure);
  const uint64_t now_ns = worker_.loop().now_ns();
  if (moved) sent_ns_ = now_ns;
  if (client_owes_body()) return await_body();
  if (moved || patience_.waiting()) {
    patience_.pause(now_ns);
    wait_at_most_ns(backend_wait_ns());
    return Step::suspend;
  }
  if (!expired()) return Step::suspend;
  if (const Failure over = own_time_over(); over != Failure::none) return attempt_failed(over);
  return attempt_failed(request_sent_ ? Failure::first_byte_timeout : Failure::request_stalled);
}

// The backend takes more of the body than the client has sent.
Step Transaction::await_body() {
  wait_until_ns(patience_.renew(client_->facts().patience, request_bytes_, worker_.loop().now_ns()));
  if (!expired()) return Step::suspend;
  if (own_time_over() != Failure::none) return fail(Failure::request_late);
  return fail(patience_.trickles() ? Failure::client_too_slow : Failure::request_timeout);
}

Step Transaction::begin_response() {
  const http1::Head& head = *backend_->head();
  const bool unasked_upgrade = head.status == 101 && request_.upgrade.empty();
  if (unasked_upgrade) return attempt_failed(Failure::bad_response);
  const MessageFault fault = response_from_http1(head, request_.is_head(), arena_, response_);
  if (fault != MessageFault::none) failure_detail_ = name(fault);
  switch (fault) {
    case MessageFault::none:
      break;
    case MessageFault::too_many_fields:
    case MessageFault::too_many_options:
    case MessageFault::too_large:
      return attempt_failed(Failure::response_too_large);
    default:
      return attempt_failed(Failure::bad_response);
  }
  end_head_deadline();
  first_byte_ns_ = worker_.loop().now_ns();
  worker_.stats().first_byte.record_ns(first_byte_ns_ - sent_ns_);
  if (fill_) return begin_filled_response();
  invalidate_if_unsafe();
  cache_status_.forward_status = response_.status;
  return begin_passed_response();
}

Step Transaction::begin_passed_response() {
  status_ = response_.status;
  compose_answer_fields();
  client_->send_head({.status = status_,
                      .reason = response_.reason,
                      .fields = response_.fields,
                      .body = response_.body,
                      .content_length = response_.content_length,
                      .content_length_known = response_.has_content_length});
  head_sent_ = true;
  backend_->accept_head();
  if (status_ == 205 && !backend_->response_ended()) {  // it has content, which is dropped
    client_->end_response();
    release_backend(true);  // closes the connection, which still holds the content
    return Step::log;
  }
  if (response_.body == BodyKind::tunnel) request_sent_ = false;  // what the client sends goes on
  wait_at_most_ns(silence_ns());
  return Step::deliver;
}

// How long the deliver step bears it that nothing moves.
uint64_t Transaction::silence_ns() const {
  const bool tunnel = response_.body == BodyKind::tunnel && !request_sent_;
  return (tunnel ? pool_->config().tunnel_timeout_ms : pool_->config().idle_timeout_ms) * kNsPerMs;
}

Step Transaction::deliver() {
  if (gone_) return fail(Failure::client_gone);
  const bool request_moved = pump_request();
  const bool response_moved = pump_response();
  if (backend_->response_ended()) {
    client_->end_response();
    return Step::log;
  }
  if (backend_->failure() != Failure::none) return fail(backend_->failure());
  if (const Failure failure = request_body_failure(); failure != Failure::none) return fail(failure);
  if (!client_->ready_for_piece()) {
    wait_for_nothing();  // the client's own stall is watched by its connection
    if (expired()) return fail(own_time_over());
  } else if (request_moved || response_moved || step_deadline_ns_ == UINT64_MAX) {
    await_more(response_moved);
  } else if (expired()) {
    return fail(silence_failure());
  }
  return Step::suspend;
}

// Whose time it was that has run out in the deliver step.
Failure Transaction::silence_failure() const {
  const uint64_t now_ns = worker_.loop().now_ns();
  if (const Failure over = own_time_over(); over != Failure::none) {
    return patience_.waiting() ? Failure::request_late : over;
  }
  if (response_.body == BodyKind::tunnel) return Failure::tunnel_timeout;
  const bool clients = patience_.waiting() && patience_end_ns_ <= now_ns;
  return clients ? Failure::client_too_slow : Failure::body_timeout;
}

// Something moved, or begins to be waited for. What little the client sends of its body does not put off the end for
// ever; what the backend sends does.
void Transaction::await_more(bool response_moved) {
  const uint64_t now_ns = worker_.loop().now_ns();
  wait_at_most_ns(silence_ns());
  if (response_moved) patience_ = Patience();
  if (response_.body == BodyKind::tunnel) return;
  if (!client_owes_body()) return patience_.pause(now_ns);
  patience_end_ns_ = patience_.renew(client_->facts().patience, request_bytes_, now_ns);
  if (patience_end_ns_ < step_deadline_ns_) wait_until_ns(patience_end_ns_);
}

// Moves what the client has sent of the body to the backend. True when anything moved.
bool Transaction::pump_request() {
  if (request_sent_) return false;
  const bool tunnel = response_.body == BodyKind::tunnel;
  bool moved = false;
  if (backend_->ready_for_piece()) client_->want_body();
  for (int pieces = 0; backend_->ready_for_piece(); ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      break;
    }
    const std::string_view piece = client_->next_piece();
    if (piece.empty()) {
      if (client_->body_ended()) {
        if (tunnel) {
          backend_->end_tunnel();
        } else {
          backend_->end_request();
        }
        request_sent_ = moved = true;
      }
      break;
    }
    request_bytes_ += piece.size();
    if (request_bytes_ > client_->facts().max_body_bytes && !tunnel) break;
    backend_->send_piece(piece);
    moved = true;
  }
  if (moved) backend_->flush();
  return moved;
}

Failure Transaction::request_body_failure() const {
  if (request_sent_) return Failure::none;
  if (request_bytes_ > client_->facts().max_body_bytes && response_.body != BodyKind::tunnel) {
    return Failure::body_too_large;
  }
  return client_->body_failure();
}

// Moves what the backend has sent of the body to the client. True when anything moved.
bool Transaction::pump_response() {
  bool moved = false;
  for (int pieces = 0; client_->ready_for_piece(); ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      break;
    }
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) break;
    response_bytes_ += piece.size();
    client_->send_piece(piece);
    moved = true;
  }
  return moved;
}

}  // namespace tidegate::l7
