// SPDX-License-Identifier: Apache-2.0
// The steps of a transaction that deal with a backend: choose, connect, exchange, deliver; and when to try another.
#include <algorithm>

#include "core/clock.h"
#include "l7/forwarding.h"
#include "l7/limits.h"
#include "l7/transaction.h"
#include "l7/worker.h"

namespace tidegate::l7 {

Step Transaction::choose() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (tries_ == 0) {
    if (wire_head_.empty()) wire_head_ = compose_wire_head(&fill_);
    pool_->runtime().retries.deposit(pool_->config().retry_budget);
  }
  if (worker_.loop().now_ns() >= total_deadline_ns_) return fail(Failure::total_timeout);
  const Pool& config = pool_->config();
  Failure refusal = Failure::pool_down;
  // A backend at its limit of connections is passed over like one that failed, but not counted against it.
  for (size_t passed_over = 0; passed_over <= config.backends.size(); ++passed_over) {
    const PoolMember* member = pool_->choose({.hash = pick_hash(),
                                              .random = worker_.request_ids().random(),
                                              .now_ns = worker_.loop().now_ns(),
                                              .tried = {tried_.data(), tried_count_}});
    if (member == nullptr) break;
    if (acquire_connection(*member)) {
      ++tries_;
      wait_at_most_ns(config.connect_timeout_ms * kNsPerMs);
      return Step::connect;
    }
    refusal = Failure::pool_busy;
    if (tried_count_ == tried_.size()) break;
    tried_[tried_count_++] = member->index;
  }
  return fail(refusal);
}

bool Transaction::acquire_connection(const PoolMember& member) {
  const Pool& config = pool_->config();
  // With an address of each family, the second try of a request goes to the other one.
  const IpAddress& address = member.config->addresses[tries_ % member.config->addresses.size()];
  const BackendPeer peer{{address, member.config->port}, plan_->pool_tls(route_->pool), config.tls_server_name};
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
  member.runtime->in_flight.fetch_add(1, std::memory_order_relaxed);
  member.runtime->requests.fetch_add(1, std::memory_order_relaxed);
  pool_->runtime().in_flight.fetch_add(1, std::memory_order_relaxed);
  request_sent_ = request_.body == BodyKind::none;
  sent_ns_ = worker_.loop().now_ns();
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
  if (backend_) worker_.backends().give_back(std::move(backend_), pool_->config());
}

Step Transaction::connect() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (backend_->failure() != Failure::none) return attempt_failed(backend_->failure());
  if (!backend_->connected()) {
    if (!expired()) return Step::suspend;
    return attempt_failed(worker_.loop().now_ns() >= total_deadline_ns_ ? Failure::total_timeout
                                                                        : Failure::connect_timeout);
  }
  connected_ns_ = worker_.loop().now_ns();
  sent_ns_ = connected_ns_;
  wait_at_most_ns(pool_->config().first_byte_timeout_ms * kNsPerMs);
  return Step::exchange;
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
    wait_at_most_ns(pool_->config().first_byte_timeout_ms * kNsPerMs);
    return Step::suspend;
  }
  if (!expired()) return Step::suspend;
  return attempt_failed(now_ns >= total_deadline_ns_ ? Failure::total_timeout : Failure::first_byte_timeout);
}

// The backend takes more of the body than the client has sent.
Step Transaction::await_body() {
  wait_until_ns(patience_.renew(client_->facts().patience, request_bytes_, worker_.loop().now_ns()));
  if (!expired()) return Step::suspend;
  if (worker_.loop().now_ns() >= total_deadline_ns_) return fail(Failure::request_late);
  return fail(patience_.trickles() ? Failure::client_too_slow : Failure::request_timeout);
}

Step Transaction::begin_response() {
  const http1::Head& head = *backend_->head();
  const bool unasked_upgrade = head.status == 101 && request_.upgrade.empty();
  if (unasked_upgrade || response_from_http1(head, request_.is_head(), arena_, response_) != MessageFault::none) {
    return attempt_failed(Failure::bad_response);
  }
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
  client_->send_head(status_, response_.fields, response_.body, response_.content_length, response_.has_content_length);
  head_sent_ = true;
  backend_->accept_head();
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
  if (backend_->failure() != Failure::none) {
    member_->runtime->failures.fetch_add(1, std::memory_order_relaxed);
    return fail(backend_->failure());
  }
  if (const Failure failure = request_body_failure(); failure != Failure::none) return fail(failure);
  if (!client_->ready_for_piece()) {
    wait_for_nothing();  // the client's own stall is watched by its connection
    if (expired()) return fail(Failure::total_timeout);
  } else if (request_moved || response_moved || step_deadline_ns_ == UINT64_MAX) {
    await_more(response_moved);
  } else if (expired()) {
    const uint64_t now_ns = worker_.loop().now_ns();
    if (now_ns >= total_deadline_ns_) return fail(patience_.waiting() ? Failure::request_late : Failure::total_timeout);
    const bool clients = patience_.waiting() && patience_.wait(client_->facts().patience, now_ns) <= now_ns;
    return fail(clients ? Failure::client_too_slow : Failure::body_timeout);
  }
  return Step::suspend;
}

// Something moved, or begins to be waited for. What little the client sends of its body does not put off the end for
// ever; what the backend sends does.
void Transaction::await_more(bool response_moved) {
  const uint64_t now_ns = worker_.loop().now_ns();
  wait_at_most_ns(silence_ns());
  if (response_moved) patience_ = Patience();
  if (response_.body == BodyKind::tunnel) return;
  if (!client_owes_body()) return patience_.pause(now_ns);
  const uint64_t end_ns = patience_.renew(client_->facts().patience, request_bytes_, now_ns);
  if (end_ns < step_deadline_ns_) wait_until_ns(end_ns);
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

// One try has failed before the client was told anything: try again where that is safe and affordable, else say so.
Step Transaction::attempt_failed(Failure failure) {
  const bool stale = failure == Failure::backend_closed && backend_->reused() && !backend_->anything_received();
  if (!stale && !backend_to_blame(failure)) return fail(failure);
  const bool another = may_retry(failure, stale);
  if (stale) {
    fresh_only_ = true;  // the backend is not to blame: it closed an idle connection as we took it up
  } else if (failure != Failure::out_of_sockets) {  // that is our own limit
    const Pool& config = pool_->config();
    const uint64_t now_ns = worker_.loop().now_ns();
    if (member_->runtime->note_failure(now_ns, config.eject_after, config.eject_ms * kNsPerMs)) {
      worker_.stats().ejections.add();
    }
    if (tried_count_ < tried_.size()) tried_[tried_count_++] = member_->index;
  }
  if (!another) return fail(failure);
  worker_.stats().retries.add();
  release_backend(false);
  return Step::choose;
}

// A backend answers for what it had: not for a request of which the client owed the rest, which any backend gives up at
// some time; and when the whole exchange's time is over, only if it was waited for most of that time.
bool Transaction::backend_to_blame(Failure failure) const {
  if (failure == Failure::backend_closed) return !patience_.waiting();
  if (failure != Failure::total_timeout) return true;
  const uint64_t now_ns = worker_.loop().now_ns();
  return now_ns - sent_ns_ >= (now_ns - started_ns_) / 2;
}

bool Transaction::may_retry(Failure failure, bool stale_connection) {
  if (failure == Failure::total_timeout || failure == Failure::bad_response || failure == Failure::out_of_sockets ||
      failure == Failure::too_many_interim) {
    return false;
  }
  const bool never_sent =
      failure == Failure::connect_failed || failure == Failure::connect_timeout || failure == Failure::tls_failed;
  // RFC 9110 §9.2.2: what a backend may have begun to act on is repeated only when acting twice does no harm, and only
  // while every byte of it is still at hand.
  if (!never_sent && (!request_.is_idempotent() || request_bytes_ > 0)) return false;
  if (stale_connection) return !fresh_only_;
  const Pool& config = pool_->config();
  if (tries_ > config.retry_attempts || config.retry_budget <= 0) return false;
  if (never_sent)
    return true;  // the request moves on; nobody has worked on it yet, so it adds nothing to anybody's load
  if (pool_->runtime().retries.withdraw(worker_.loop().now_ns())) return true;
  worker_.stats().retries_denied.add();
  return false;
}

}  // namespace tidegate::l7
