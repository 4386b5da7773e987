// SPDX-License-Identifier: Apache-2.0
// The steps of a transaction that use a backend: choose, connect, exchange, deliver.
#include <fmt/format.h>

#include <algorithm>

#include "conf/model/pool.h"
#include "core/clock.h"
#include "l7/exchange/sticky.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/policy/deadline.h"
#include "l7/wire/proxy_protocol.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

// Tells the client which backend it uses, unless it knows.
void add_sticky_field(Exchange& exchange, uint64_t now_s, Arena& arena) {
  const PoolSticky& sticky = exchange.pool->config().sticky;
  const HashKey& key = exchange.plan->plan().hash_key;
  const PoolMember* const member = exchange.attempts.member;
  if (sticky_member(key, *exchange.pool, token_of_request(sticky, exchange.request), now_s) == member) return;
  const std::string token = sticky_token(key, *exchange.pool, *member, now_s + sticky_seconds(sticky));
  const std::string_view value = arena.copy(sticky_field(sticky, token, !exchange.facts.tls_version.empty()));
  if (sticky.by == StickyBy::cookie) {
    exchange.response.fields.add_own("Set-Cookie", "set-cookie", value, FieldKind::other);
  } else {
    exchange.response.fields.add_own(sticky.name, arena.copy_lower(sticky.name), value, FieldKind::other);
  }
}

// The failure if the time of the exchange ends while it waits for the client. The client's own deadline is reported as
// such.
Failure late_body(Failure over) { return over == Failure::deadline_exceeded ? over : Failure::request_late; }

}  // namespace

Step Transaction::choose() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (exchange_.attempts.count == 0) {
    exchange_.pool->runtime().retries.deposit(exchange_.pool->config().retry_budget);
  }
  if (const Failure over = own_time_over(); over != Failure::none) return fail(over);
  if (exchange_.forwarding != nullptr) {
    if (const Failure failure = change_request(); failure != Failure::none) return fail(failure);
  }
  if (exchange_.mirror_terms != nullptr) begin_mirror();
  if (exchange_.mirrored) {  // a copy does not wait for room: requests with a client come first
    const std::optional<Step> next = others_wait_first() ? std::nullopt : take_backend();
    return next ? *next : fail(Failure::pool_busy);
  }
  if (others_wait_first()) return Step::queue;
  return take_backend().value_or(Step::queue);
}

std::optional<Step> Transaction::take_backend() {
  BackendPool::Choice choice;
  const PoolMember* const member = choose_member(choice);
  if (member == nullptr) {
    if (choice.full) return std::nullopt;
    return fail(choice.broken ? failure_of_tries(Failure::breaker_open) : Failure::pool_down);
  }
  if (!acquire_connection(*member)) {
    if (member->breaker != nullptr) member->breaker->forgo(std::exchange(exchange_.attempts.permit, {}));
    // There is room, but on HTTP/2 connections. In the queue this request would block those that can use them.
    if (tunnels_by_http1_alone(*member)) return fail(Failure::pool_busy);
    return std::nullopt;
  }
  ++exchange_.attempts.count;
  wait_at_most_ns(exchange_.pool->config().connect_timeout_ms * kNsPerMs);
  return Step::connect;
}

// Chooses a member whose breaker lets this request through.
const PoolMember* Transaction::choose_member(BackendPool::Choice& choice) {
  const BackendPool::Question question{.hash = pick_hash(),
                                       .random = worker_.request_ids().random(),
                                       .now_ns = worker_.loop().now_ns(),
                                       .is_retry = exchange_.attempts.count > 0,
                                       .tried = {exchange_.attempts.failed.data(), exchange_.attempts.failed_count},
                                       .connections = &worker_.backends(),
                                       .past_accepted = exchange_.attempts.past_accepted};
  const PoolSticky& sticky = exchange_.pool->config().sticky;
  const PoolMember* wanted = nullptr;
  if (sticky.by != StickyBy::none && exchange_.attempts.count == 0) {
    wanted = sticky_member(exchange_.plan->plan().hash_key, *exchange_.pool,
                           token_of_request(sticky, exchange_.request), realtime_ns() / kNsPerS);
  }
  for (;;) {
    if (wanted != nullptr && exchange_.pool->may_use(*wanted, question)) {
      choice = {wanted};
      exchange_.attempts.chosen_by = ChosenBy::sticky;
    } else {
      choice = exchange_.pool->choose(question);
      exchange_.attempts.chosen_by = ChosenBy::policy;
    }
    if (choice.member == nullptr && !choice.full && !choice.broken && !exchange_.route->labels_required &&
        exchange_.split_pool == kNone) {
      choice = exchange_.plan->plan().pools[exchange_.route->pool()]->choose(question);
      exchange_.attempts.chosen_by = ChosenBy::whole_pool;
    }
    if (choice.member == nullptr || choice.member->breaker == nullptr) return choice.member;
    exchange_.attempts.permit = choice.member->breaker->ask(question.now_ns, exchange_.pool->config().breaker);
    if (exchange_.attempts.permit.granted) return choice.member;
    // Another worker took the last trial after choose() had checked. The next check finds that breaker open.
  }
}

// A connection without a client (a background revalidation) is our own.
std::string_view Transaction::proxy_header() {
  const ProxyProtocol version = exchange_.pool->config().proxy_protocol;
  if (version == ProxyProtocol::none) return {};
  std::optional<ProxyAddresses> addresses;
  if (client_ != nullptr) addresses = {exchange_.facts.peer, client_->destination()};
  return arena_.copy(write_proxy_header(version, addresses));
}

bool Transaction::acquire_connection(const PoolMember& member) {
  const Pool& config = exchange_.pool->config();
  // If the member has an address of each family, the second try of a request goes to the other address.
  const BackendAddress& address = member.addresses[exchange_.attempts.count % member.addresses.size()];
  const uint32_t pool = exchange_.split_pool == kNone ? exchange_.route->pool() : exchange_.split_pool;
  const bool http1_alone = tunnels_by_http1_alone(member);
  const BackendPeer peer{.address = address,
                         .tls = exchange_.plan->pool_tls(pool),
                         .server_name = config.tls_server_name,
                         .idle_timeout_ms = config.idle_timeout_ms,
                         .protocol = http1_alone ? BackendProtocol::h1 : config.protocol,
                         .preface = proxy_header(),
                         .http1_alone = http1_alone,
                         .local = config.local_addresses};
  if (!exchange_.attempts.fresh_only) {
    backend_ = worker_.backends().take_idle(*member.runtime, peer, !exchange_.request.is_idempotent());
    if (backend_) worker_.stats().backend_reuses.add();
  }
  if (!backend_) {
    backend_ = worker_.backends().open(*member.runtime, peer, config.max_connections, exchange_.attempts.past_accepted);
    if (!backend_) return false;
    worker_.stats().backend_connections.add();
  }
  exchange_.attempts.ordinal = worker_.backends().open_to(*member.runtime);
  exchange_.attempts.told_not_accepted = false;
  exchange_.attempts.member = &member;
  exchange_.attempts.backend_name = member.name;
  exchange_.attempts.backend_name_id = member.runtime->name;
  exchange_.attempts.failed_by_status = false;
  failure_detail_.clear();
  member.runtime->in_flight.fetch_add(1, std::memory_order_relaxed);
  member.runtime->requests.fetch_add(1, std::memory_order_relaxed);
  exchange_.pool->runtime().in_flight.fetch_add(1, std::memory_order_relaxed);
  exchange_.attempts.request_sent = false;
  exchange_.attempts.resent_bytes = 0;
  exchange_.timing.sent_ns = exchange_.timing.connecting_since_ns = worker_.loop().now_ns();
  exchange_.timing.tcp_connected_ns = 0;
  backend_->set_user(*this);
  return true;
}

// The connection's protocol is known now, and composes the head.
void Transaction::begin_request() {
  const RequestHead& request = exchange_.outgoing == nullptr ? exchange_.request : *exchange_.outgoing;
  const cache::Fill& fill = exchange_.cache.fill;
  const bool shared = static_cast<bool>(fill);
  FieldList conditions;
  if (shared) {
    for (const http1::Field& field : fill.conditional_fields()) {
      conditions.add({arena_.copy_lower(field.name), field.value, FieldKind::other, false, field.name});
    }
  }
  const policy::DeadlineTerms* const deadline = exchange_.deadline;
  uint64_t imitations = 0;
  const std::string_view node = exchange_.plan->plan().this_node().name;
  backend_->begin({.request = request,
                   .facts = exchange_.facts,
                   .edits = exchange_.route->request_headers,
                   .via_node = exchange_.facts.via ? node : std::string_view(),
                   .request_id = exchange_.request_id,
                   .fallback_host = request.authority.empty() ? host_of_backend() : std::string_view(),
                   .host = exchange_.outgoing_host,
                   .conditions = shared ? &conditions : nullptr,
                   .grpc_timeout = exchange_.grpc ? grpc_time_left() : std::string_view(),
                   .deadline_name = deadline == nullptr ? std::string_view() : deadline->field,
                   .deadline_lower_name = deadline == nullptr ? std::string_view() : deadline->lower_field,
                   .deadline = deadline == nullptr ? std::string_view() : time_left(),
                   .authorization = !shared || fill.sends("authorization"),
                   .cookie = !shared || fill.sends("cookie"),
                   .imitations = &imitations},
                  arena_, exchange_.response);
  if (imitations > 0 && exchange_.attempts.count == 1) worker_.stats().fields_dropped.add(imitations);
  exchange_.attempts.request_sent = request.body == BodyKind::none;
  if (exchange_.attempts.request_sent) backend_->end_request({});
}

// The Host for a request without one: the pool's tls_server_name, or the address of the chosen backend.
std::string_view Transaction::host_of_backend() {
  const Pool& pool = exchange_.pool->config();
  if (!pool.tls_server_name.empty()) return pool.tls_server_name;
  const PoolMember& member = *exchange_.attempts.member;
  const BackendAddress& first = member.addresses.front();
  if (first.is_unix()) return "localhost";
  const IpAddress& address = first.endpoint.address;
  const std::string numeric = address.is_v6() ? fmt::format("[{}]", address.to_string()) : address.to_string();
  std::string host = member.config->host.empty() ? numeric : member.config->host;
  if (host.ends_with('.')) host.pop_back();
  const bool usual_port = first.endpoint.port == (pool.tls ? 443 : 80);
  return arena_.copy(usual_port ? host : fmt::format("{}:{}", host, first.endpoint.port));
}

uint64_t Transaction::pick_hash() const {
  const PoolPolicy policy = exchange_.pool->config().policy;
  if (policy != PoolPolicy::consistent_hash && policy != PoolPolicy::ring_hash) return 0;
  return hash_for_pool(exchange_.plan->plan(), exchange_.pool->config(), exchange_.request, exchange_.client_address);
}

void Transaction::release_backend(bool keep) {
  if (exchange_.attempts.member != nullptr) {
    exchange_.attempts.member->runtime->in_flight.fetch_sub(1, std::memory_order_relaxed);
    exchange_.pool->runtime().in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (keep && !exchange_.attempts.failed_by_status) exchange_.attempts.member->runtime->note_success();
    if (exchange_.attempts.permit.granted) {
      exchange_.attempts.member->breaker->forgo(std::exchange(exchange_.attempts.permit, {}));
    }
    exchange_.attempts.member = nullptr;
  }
  if (!backend_) return;
  if (!backend_->failure_detail().empty()) failure_detail_ = backend_->failure_detail();
  // Fields of a response that was refused must not get into an answer of our own.
  if (!exchange_.head_sent) exchange_.response.fields.clear();
  BackendStream::give_back(std::move(backend_), exchange_.pool->config());
}

Step Transaction::connect() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (backend_->superseded() && !use_successor()) return Step::choose;
  if (backend_->failure() != Failure::none) return attempt_failed(backend_->failure());
  if (!backend_->connected()) return not_accepted() ? attempt_failed(Failure::not_accepted) : await_connection();
  if (!exchange_.request.upgrade.empty()) {
    if (const std::optional<Step> next = choose_tunnel()) return *next;
  }
  exchange_.timing.connected_ns = worker_.loop().now_ns();
  if (!backend_->reused()) exchange_.timing.tcp_connected_ns = backend_->tcp_connected_ns();
  exchange_.timing.sent_ns = exchange_.timing.connected_ns;
  begin_request();
  wait_at_most_ns(backend_wait_ns());
  return Step::exchange;
}

Step Transaction::await_connection() {
  if (!expired()) return Step::suspend;
  const Failure over = own_time_over();
  return attempt_failed(over != Failure::none ? over : Failure::connect_timeout);
}

// TLS has chosen HTTP/1.1. Returns false if another exchange has the connection. Then a backend is chosen again, which
// does not count as a retry.
bool Transaction::use_successor() {
  std::unique_ptr<BackendStream> successor = backend_->take_successor();
  if (!successor) {
    choose_again();
    return false;
  }
  BackendStream::give_back(std::move(backend_), exchange_.pool->config());
  backend_ = std::move(successor);
  backend_->set_user(*this);
  return true;
}

// Nothing was sent and no backend is at fault, so choosing again is not a retry.
void Transaction::choose_again() {
  release_backend(false);
  --exchange_.attempts.count;
}

// How long the exchange step may wait for the backend: for its answer if it has the whole request, otherwise until it
// takes the next bytes of the body.
uint64_t Transaction::backend_wait_ns() const {
  const Pool& config = exchange_.pool->config();
  if (!exchange_.attempts.request_sent) return config.idle_timeout_ms * kNsPerMs;
  const uint64_t of_route = exchange_.route == nullptr ? 0 : exchange_.route->try_timeout_ms;
  return (of_route != 0 ? of_route : config.first_byte_timeout_ms) * kNsPerMs;
}

Step Transaction::exchange() {
  if (nobody_waits()) return fail(Failure::client_gone);
  const bool moved = pump_request();
  if (backend_->head_ready()) return begin_response();
  if (backend_->failure() != Failure::none) return attempt_failed(backend_->failure());
  if (const Failure failure = request_body_failure(); failure != Failure::none) return fail(failure);
  if (not_accepted()) return attempt_failed(Failure::not_accepted);
  const uint64_t now_ns = worker_.loop().now_ns();
  if (moved) exchange_.timing.sent_ns = now_ns;
  if (client_owes_body()) return await_body();
  if (moved || exchange_.patience.waiting()) {
    exchange_.patience.pause(now_ns);
    wait_at_most_ns(backend_wait_ns());
    return Step::suspend;
  }
  if (!expired()) return Step::suspend;
  if (const Failure over = own_time_over(); over != Failure::none) return attempt_failed(over);
  return attempt_failed(exchange_.attempts.request_sent ? Failure::first_byte_timeout : Failure::request_stalled);
}

// The backend could take more of the body than the client has sent.
Step Transaction::await_body() {
  wait_until_ns(
      exchange_.patience.renew(exchange_.facts.patience, exchange_.outcome.request_bytes, worker_.loop().now_ns()));
  if (!expired()) return Step::suspend;
  if (const Failure over = own_time_over(); over != Failure::none) return fail(late_body(over));
  return fail(exchange_.patience.trickles() ? Failure::client_too_slow : Failure::request_timeout);
}

Step Transaction::begin_response() {
  const MessageFault fault = backend_->take_head();
  const bool unasked_upgrade = exchange_.response.status == 101 && exchange_.request.upgrade.empty();
  if (unasked_upgrade) return attempt_failed(Failure::bad_response);
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
  if (!exchange_.request.upgrade.empty()) {
    if (const Failure failure = judge_upgrade(); failure != Failure::none) return attempt_failed(failure);
  }
  exchange_.timing.first_byte_ns = worker_.loop().now_ns();
  worker_.stats().first_byte.record_ns(exchange_.timing.first_byte_ns - exchange_.timing.sent_ns);
  judge_answer();
  if (retries_status()) return Step::choose;
  end_head_deadline();
  if (exchange_.attempts.request_sent) request_buffer_.clear();  // no other backend will be asked
  if (exchange_.mirrored) return begin_discard();
  if (exchange_.cache.fill) return begin_filled_response();
  invalidate_if_unsafe();
  exchange_.cache.status.forward_status = exchange_.response.status;
  return begin_passed_response();
}

Step Transaction::begin_passed_response() {
  exchange_.outcome.status = exchange_.response.status;
  if (web_) web_->take_head(exchange_.response, arena_);
  if (exchange_.pool->config().sticky.by != StickyBy::none) {
    add_sticky_field(exchange_, realtime_ns() / kNsPerS, arena_);
  }
  if (exchange_.response_json != nullptr && !exchange_.grpc) {
    if (const std::optional<Step> next = begin_gather()) return *next;
  }
  const ResponseHead& response = exchange_.response;
  std::optional<uint64_t> length;
  if (response.has_content_length) length = response.content_length;
  offer_content(response.body, length);
  compose_answer_fields();
  send_answer_head(response.reason, response.body, response.content_length, response.has_content_length);
  backend_->accept_head();
  if (exchange_.outcome.status == 205 && !backend_->response_ended()) {  // it has content, which is dropped
    client_->end_response();
    release_backend(true);  // closes the connection, because content is still on it
    return Step::log;
  }
  if (exchange_.response.body == BodyKind::tunnel) begin_tunnel();
  wait_at_most_ns(silence_ns());
  return Step::deliver;
}

// The longest time that the deliver step may take without progress.
uint64_t Transaction::silence_ns() const {
  const bool tunnel = exchange_.response.body == BodyKind::tunnel && !exchange_.attempts.request_sent;
  return (tunnel ? exchange_.pool->config().tunnel_timeout_ms : exchange_.pool->config().idle_timeout_ms) * kNsPerMs;
}

Step Transaction::deliver() {
  if (exchange_.client_gone) return fail(Failure::client_gone);
  const bool request_moved = pump_request();
  const bool buffered = exchange_.pool->config().buffer_response_bytes != 0 && !exchange_.tunnel && !exchange_.grpc;
  const bool response_moved = buffered ? pump_buffered_response() : pump_response();
  if (backend_->response_ended()) {
    if (response_buffer_.bytes() > 0) return leave_backend();
    if (web_) return end_grpc_web();
    end_content(backend_->trailers());
    return Step::log;
  }
  if (backend_->failure() != Failure::none) return fail(backend_->failure());
  if (const Failure failure = request_body_failure(); failure != Failure::none) return fail(failure);
  if (!client_->ready_for_piece()) {
    wait_for_nothing();  // the client's connection watches the client's own stall
    if (expired()) return fail(own_time_over());
  } else if (request_moved || response_moved || exchange_.timing.step_deadline_ns == UINT64_MAX) {
    await_more(response_moved);
  } else if (expired()) {
    return fail(silence_failure());
  }
  return Step::suspend;
}

// The failure if the time of the deliver step is over.
Failure Transaction::silence_failure() const {
  const uint64_t now_ns = worker_.loop().now_ns();
  if (const Failure over = own_time_over(); over != Failure::none) {
    return exchange_.patience.waiting() ? late_body(over) : over;
  }
  if (exchange_.response.body == BodyKind::tunnel) return Failure::tunnel_timeout;
  const bool clients = exchange_.patience.waiting() && exchange_.timing.patience_end_ns <= now_ns;
  return clients ? Failure::client_too_slow : Failure::body_timeout;
}

// Something moved, or the wait begins now. Bytes from the backend restart the time. Bytes of the client's body only
// restore patience in proportion.
void Transaction::await_more(bool response_moved) {
  const uint64_t now_ns = worker_.loop().now_ns();
  wait_at_most_ns(silence_ns());
  if (response_moved) exchange_.patience = Patience();
  if (exchange_.response.body == BodyKind::tunnel) return;
  if (!client_owes_body()) return exchange_.patience.pause(now_ns);
  exchange_.timing.patience_end_ns =
      exchange_.patience.renew(exchange_.facts.patience, exchange_.outcome.request_bytes, now_ns);
  if (exchange_.timing.patience_end_ns < exchange_.timing.step_deadline_ns)
    wait_until_ns(exchange_.timing.patience_end_ns);
}

// Moves the received part of the client's body to the backend. Returns true if anything moved.
bool Transaction::pump_request() {
  if (exchange_.attempts.request_sent) return false;
  const bool tunnel = exchange_.response.body == BodyKind::tunnel;
  bool moved = false;
  if (backend_->ready_for_piece()) client_->want_body();
  for (int pieces = 0; backend_->ready_for_piece(); ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      break;
    }
    const std::string_view piece = next_request_piece();
    if (piece.empty()) {
      if (client_->body_ended() && !(web_ && web_->broken(true))) {
        if (tunnel) {
          backend_->end_tunnel();
        } else {
          backend_->end_request(client_->trailers());
        }
        exchange_.attempts.request_sent = moved = true;
      }
      break;
    }
    if (exchange_.outcome.request_bytes > exchange_.facts.max_body_bytes && !tunnel) break;
    const bool last = !tunnel && is_whole_body(piece);
    backend_->send_piece(piece);
    moved = true;
    if (!last) continue;
    backend_->end_request(client_->trailers());
    exchange_.attempts.request_sent = true;
    break;
  }
  if (moved) backend_->flush();
  return moved;
}

// A short body that is complete, such as a unary gRPC call, ends with its only piece: over HTTP/2 its end needs no
// frame of its own.
bool Transaction::is_whole_body(std::string_view piece) const {
  return backend_->may_refuse() && !web_ && piece.size() == exchange_.outcome.request_bytes &&
         piece.size() <= kKeptBodyBytes && request_buffer_.bytes() == 0 && client_->body_ended() &&
         client_->body_failure() == Failure::none;
}

// Takes bytes that were kept for another try first, then bytes from the client.
std::string_view Transaction::next_request_piece() {
  size_t& resent = exchange_.attempts.resent_bytes;
  if (request_buffer_.bytes() > 0) {
    const std::string_view piece = request_buffer_.piece_at(resent);
    resent += piece.size();
    if (!piece.empty() || exchange_.body_at_hand) return piece;
    request_buffer_.clear();  // the rest is sent as it comes
  }
  if (resent < kept_body_.size()) return std::string_view(kept_body_).substr(std::exchange(resent, kept_body_.size()));
  const std::string_view piece = web_ ? next_web_piece() : client_->next_piece();
  const bool all_is_kept = exchange_.outcome.request_bytes == kept_body_.size();
  exchange_.outcome.request_bytes += piece.size();
  if (all_is_kept && exchange_.outcome.request_bytes <= kKeptBodyBytes && backend_->may_refuse()) {
    kept_body_ += piece;
    resent = kept_body_.size();
  }
  return piece;
}

Failure Transaction::request_body_failure() const {
  if (exchange_.attempts.request_sent) return Failure::none;
  if (exchange_.outcome.request_bytes > exchange_.facts.max_body_bytes && exchange_.response.body != BodyKind::tunnel) {
    return Failure::body_too_large;
  }
  if (web_ && web_->broken(client_->body_ended())) return Failure::bad_request;
  return client_->body_failure();
}

// Moves the received part of the backend's body to the client. Returns true if anything moved.
bool Transaction::pump_response() {
  bool moved = false;
  for (int pieces = 0; client_->ready_for_piece(); ++pieces) {
    if (pieces == kTurnPieces) {
      worker_.resume_later(*this);
      break;
    }
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) {
      if (!backend_->response_ended()) flush_content();  // the backend pauses: the client gets everything so far
      break;
    }
    if (web_) {
      exchange_.outcome.response_bytes += piece.size();
      send_web_piece(piece);
    } else {
      send_content(piece, backend_->response_ended());
    }
    moved = true;
  }
  return moved;
}

}  // namespace tidegate::l7
