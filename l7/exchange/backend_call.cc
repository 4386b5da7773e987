// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/backend_call.h"

#include <algorithm>

#include "conf/model/pool.h"
#include "core/assert.h"
#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/wire/proxy_protocol.h"
#include "l7/worker.h"

namespace tidegate::l7 {

BackendCall::BackendCall(Transaction& transaction, Arena& arena, const Terms& terms)
    : transaction_(transaction),
      worker_(transaction.worker()),
      arena_(arena),
      pool_(terms.pool),
      tls_(terms.tls),
      edits_(terms.edits),
      facts_(terms.facts),
      via_node_(terms.via_node),
      request_id_(terms.request_id),
      host_(terms.host),
      timeout_ns_(terms.timeout_ns),
      most_body_bytes_(terms.most_body_bytes),
      client_hash_(siphash13(worker_.plan()->plan().hash_key, terms.client)),
      priority_(terms.priority),
      waiter_(&transaction),
      timer_(worker_.loop(), [this] { move(); }) {
  facts_.peer_text = arena.copy(terms.client);
}

BackendCall::~BackendCall() {
  leave_queue();
  release();
  worker_.memory().give_back(budgeted_);
}

void BackendCall::begin() {
  TIDEGATE_ASSERT(request_.body == BodyKind::none && request_.is_idempotent(), "a call can be repeated");
  deadline_ns_ = now_ns() + timeout_ns_;
  arm(timeout_ns_);
  pool_.runtime().retries.deposit(pool_.config().retry_budget);
  advance();
}

// Called by an event. The waiting transaction is told in the next round, because it destroys this call.
void BackendCall::move() {
  if (over()) return;
  advance();
  if (over()) worker_.resume_later(transaction_);
}

void BackendCall::advance() {
  while (!over() && step()) continue;
  if (backend_) backend_->flush();
}

// Returns true if the next step may follow at once.
bool BackendCall::step() {
  switch (stage_) {
    case Stage::choosing:
      return choose();
    case Stage::connecting:
      return connect();
    case Stage::asking:
      return ask();
    case Stage::reading:
      return read();
    case Stage::over:
      break;
  }
  return false;
}

bool BackendCall::choose() {
  if (now_ns() >= deadline_ns_) return end(Failure::queue_timeout);
  if (waiter_.is_pushed_out()) {
    leave_queue();
    past_accepted_ = true;
  }
  WaitQueue& queue = worker_.queue_of(pool_.runtime());
  const bool others_wait_first = waiter_.waits() ? !queue.is_next(waiter_) : queue.first_for_all() != nullptr;
  if (others_wait_first && !past_accepted_) return wait_for_room();
  const BackendPool::Question question{.hash = client_hash_,
                                       .random = worker_.request_ids().random(),
                                       .now_ns = now_ns(),
                                       .is_retry = tries_ > 0,
                                       .tried = {tried_.data(), tried_count_},
                                       .connections = &worker_.backends(),
                                       .past_accepted = past_accepted_};
  for (;;) {
    const BackendPool::Choice choice = pool_.choose(question);
    if (choice.member == nullptr) {
      if (choice.full) return wait_for_room();
      return end(choice.broken ? Failure::breaker_open : Failure::pool_down);
    }
    if (choice.member->breaker != nullptr) {
      permit_ = choice.member->breaker->ask(question.now_ns, pool_.config().breaker);
      if (!permit_.granted) continue;  // another worker took the last trial
    }
    if (take_connection(*choice.member)) return true;
    if (choice.member->breaker != nullptr) choice.member->breaker->forgo(std::exchange(permit_, {}));
    return wait_for_room();
  }
}

// The queue wakes the transaction, whose rule calls advance().
bool BackendCall::wait_for_room() {
  if (waiter_.waits()) return false;
  const WaitQueue::Joined joined =
      worker_.queue_of(pool_.runtime()).join(waiter_, client_hash_, pool_.config().queue_size, false, priority_);
  if (!joined) {
    if (std::exchange(past_accepted_, true)) return end(Failure::pool_busy);
    return choose();  // like Transaction::take_backend_past_accepted()
  }
  if (joined.pushed_out != nullptr) {
    pool_.runtime().pushed_out.fetch_add(1, std::memory_order_relaxed);
    worker_.resume_later(joined.pushed_out->transaction());
  }
  pool_.runtime().waiting.fetch_add(1, std::memory_order_relaxed);
  pool_.runtime().waited.fetch_add(1, std::memory_order_relaxed);
  worker_.wake_first(pool_.runtime().id);
  return false;
}

void BackendCall::leave_queue(bool with_its_turn) {
  if (!waiter_.waits() && !waiter_.is_pushed_out()) return;
  with_its_turn ? WaitQueue::take_turn(waiter_) : WaitQueue::leave(waiter_);
  pool_.runtime().waiting.fetch_sub(1, std::memory_order_relaxed);
  worker_.wake_first(pool_.runtime().id);
}

bool BackendCall::take_connection(const PoolMember& member) {
  const Pool& config = pool_.config();
  const BackendPeer peer{.address = member.addresses[tries_ % member.addresses.size()],
                         .tls = tls_,
                         .server_name = config.tls_server_name,
                         .idle_timeout_ms = config.idle_timeout_ms,
                         .protocol = config.protocol,
                         .preface = proxy_header(),
                         .local = config.local_addresses};
  if (!fresh_only_) {
    backend_ = worker_.backends().take_idle(*member.runtime, peer, false);
    if (backend_) worker_.stats().backend_reuses.add();
  }
  if (!backend_) {
    backend_ = worker_.backends().open(*member.runtime, peer, config.max_connections, past_accepted_);
    if (!backend_) return false;
    worker_.stats().backend_connections.add();
  }
  leave_queue(true);
  ++tries_;
  member_ = &member;
  bad_status_ = false;
  member.runtime->in_flight.fetch_add(1, std::memory_order_relaxed);
  member.runtime->requests.fetch_add(1, std::memory_order_relaxed);
  pool_.runtime().in_flight.fetch_add(1, std::memory_order_relaxed);
  backend_->set_user(*this);
  sent_ns_ = connecting_since_ns_ = now_ns();
  ordinal_ = worker_.backends().open_to(*member.runtime);
  arm(config.connect_timeout_ms * kNsPerMs);
  stage_ = Stage::connecting;
  return true;
}

// The connection is not a client's but our own.
std::string_view BackendCall::proxy_header() {
  const ProxyProtocol version = pool_.config().proxy_protocol;
  return version == ProxyProtocol::none ? std::string_view() : arena_.copy(write_proxy_header(version, std::nullopt));
}

bool BackendCall::connect() {
  if (backend_->superseded()) {
    std::unique_ptr<BackendStream> successor = backend_->take_successor();
    if (!successor) {
      release();
      --tries_;
      stage_ = Stage::choosing;
      return true;
    }
    BackendStream::give_back(std::move(backend_), pool_.config());
    backend_ = std::move(successor);
    backend_->set_user(*this);
  }
  if (backend_->failure() != Failure::none) return try_failed(backend_->failure());
  if (!backend_->connected() && not_accepted()) return try_failed(Failure::not_accepted);
  if (!backend_->connected()) return give_up_if_late(Failure::connect_timeout);
  response_ = ResponseHead();
  backend_->begin({.request = request_,
                   .facts = facts_,
                   .edits = edits_,
                   .via_node = via_node_,
                   .request_id = request_id_,
                   .fallback_host = pool_.config().tls_server_name.empty() ? std::string_view(pool_.config().name)
                                                                           : pool_.config().tls_server_name,
                   .host = host_},
                  arena_, response_);
  backend_->end_request({});
  sent_ns_ = now_ns();
  arm(pool_.config().first_byte_timeout_ms * kNsPerMs);
  stage_ = Stage::asking;
  return true;
}

bool BackendCall::ask() {
  backend_->flush();
  if (backend_->head_ready()) return take_answer();
  if (backend_->failure() != Failure::none) return try_failed(backend_->failure());
  if (not_accepted()) return try_failed(Failure::not_accepted);
  return give_up_if_late(Failure::first_byte_timeout);
}

// Like Transaction::not_accepted(), but a call can always be repeated.
bool BackendCall::not_accepted() {
  return !past_accepted_ && not_accepted_ < kNotAcceptedTries &&
         member_->runtime->shows_full_queue(backend_->acceptance(), connecting_since_ns_);
}

bool BackendCall::take_answer() {
  switch (backend_->take_head()) {
    case MessageFault::none:
      break;
    case MessageFault::too_many_fields:
    case MessageFault::too_many_options:
    case MessageFault::too_large:
      return try_failed(Failure::response_too_large);
    default:
      return try_failed(Failure::bad_response);
  }
  if (response_.status == 101) return try_failed(Failure::bad_response);
  const uint64_t took_ns = now_ns() - sent_ns_;
  member_->runtime->answered_ns.store(now_ns(), std::memory_order_relaxed);
  const Pool& config = pool_.config();
  if (config.policy == PoolPolicy::peak_ewma) member_->runtime->latency.observe(took_ns, now_ns());
  bad_status_ = config.count_5xx && response_.status >= 500;
  if (bad_status_) {
    if (pool_.note_failure(*member_, now_ns())) worker_.stats().ejections.add();
    pool_.settle_breaker(*member_, permit_, Breaker::Result::failed, now_ns());
  } else {
    const bool slow = config.breaker.slow_ms != 0 && took_ns > config.breaker.slow_ms * kNsPerMs;
    pool_.settle_breaker(*member_, permit_, slow ? Breaker::Result::slow : Breaker::Result::good, now_ns());
  }
  keep_answer();
  backend_->accept_head();
  arm(timeout_ns_);
  stage_ = Stage::reading;
  return true;
}

// Copies the head, because its fields have borrowed the connection's buffer until now.
void BackendCall::keep_answer() {
  const FieldList borrowed = response_.fields;
  response_.fields.clear();
  response_.reason = {};
  for (const Field& field : borrowed) {
    response_.fields.add(
        {arena_.copy(field.name), arena_.copy(field.value), field.kind, field.odd_name, arena_.copy(field.spelt)});
  }
}

bool BackendCall::read() {
  for (;;) {
    const std::string_view piece = backend_->next_piece();
    if (piece.empty()) break;
    if (!keep_body(piece)) {
      body_.clear();
      body_dropped_ = true;
      return end(Failure::none);
    }
  }
  if (backend_->response_ended()) return end(Failure::none);
  if (backend_->failure() != Failure::none) return try_failed(backend_->failure());
  return give_up_if_late(Failure::body_timeout);
}

// Returns false if it is too much.
bool BackendCall::keep_body(std::string_view piece) {
  const size_t bytes = body_.size() + piece.size();
  if (bytes > most_body_bytes_) return false;
  const size_t counted = kCallAnswerBytes + budgeted_;
  if (bytes > counted) {
    const size_t blocks = (bytes - counted + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    if (!worker_.memory().take(blocks)) return false;
    budgeted_ += blocks;
  }
  body_ += piece;
  return true;
}

bool BackendCall::give_up_if_late(Failure why) {
  if (now_ns() < step_deadline_ns_) return false;
  return try_failed(why);
}

bool BackendCall::try_failed(Failure failure) {
  if (failure == Failure::backend_closed && backend_->reused() && !backend_->anything_received()) {
    failure = Failure::stale_connection;
  }
  if (failure == Failure::not_accepted && backend_->failure() == failure && ordinal_ == 1) {
    failure = Failure::connect_failed;  // a unix socket whose queue is full while nothing runs
  }
  if (failure == Failure::not_accepted) pool_.note_not_accepted(*member_, worker_.backends(), ordinal_);
  charge(failure);
  const bool again = stage_ != Stage::reading && may_try_again(failure);
  if (info(failure).retry == Retry::fresh) {
    fresh_only_ = true;
  } else if (info(failure).retry == Retry::unaccepted) {
    ++not_accepted_;
    --tries_;
  } else if (info(failure).retry != Retry::refused && tried_count_ < tried_.size()) {
    tried_[tried_count_++] = member_->runtime->id;
  }
  if (!again) return end(failure);
  if (failure != Failure::not_accepted) worker_.stats().retries.add();
  release();
  arm(timeout_ns_);
  stage_ = Stage::choosing;
  return true;
}

bool BackendCall::may_try_again(Failure failure) {
  const Pool& config = pool_.config();
  if (now_ns() >= deadline_ns_ || tries_ >= kCallTries) return false;
  switch (info(failure).retry) {
    case Retry::never:
      return false;
    case Retry::fresh:
      return !fresh_only_;
    case Retry::refused:
      return true;
    case Retry::unaccepted:
      return not_accepted_ < kNotAcceptedTries;
    case Retry::unsent:
    case Retry::sent:
      break;
  }
  if (tries_ > config.retry_attempts || config.retry_budget <= 0 || !others_are_left()) return false;
  if (info(failure).retry == Retry::unsent || pool_.runtime().retries.withdraw(now_ns())) return true;
  worker_.stats().retries_denied.add();
  return false;
}

bool BackendCall::others_are_left() const {
  return pool_.others_are_left(member_, {.now_ns = now_ns(),
                                         .is_retry = true,
                                         .tried = {tried_.data(), tried_count_},
                                         .connections = &worker_.backends()});
}

void BackendCall::charge(Failure failure) {
  const Blame blame = info(failure).blame;
  const uint64_t longest_ns = pool_.config().connect_timeout_ms * kNsPerMs;
  if (blame != Blame::backend &&
      !(blame == Blame::silent_backend && member_->runtime->was_silent(connecting_since_ns_, now_ns(), longest_ns))) {
    return;
  }
  if (pool_.note_failure(*member_, now_ns())) worker_.stats().ejections.add();
  pool_.settle_breaker(*member_, permit_, Breaker::Result::failed, now_ns());
}

bool BackendCall::end(Failure failure) {
  failure_ = failure;
  leave_queue();
  if (member_ != nullptr && failure == Failure::none && !bad_status_) member_->runtime->note_success();
  release();
  timer_.cancel();
  stage_ = Stage::over;
  return false;
}

void BackendCall::release() {
  if (member_ != nullptr) {
    member_->runtime->in_flight.fetch_sub(1, std::memory_order_relaxed);
    pool_.runtime().in_flight.fetch_sub(1, std::memory_order_relaxed);
    if (permit_.granted) member_->breaker->forgo(std::exchange(permit_, {}));
    member_ = nullptr;
  }
  if (backend_) BackendStream::give_back(std::move(backend_), pool_.config());
}

uint64_t BackendCall::now_ns() const { return worker_.loop().now_ns(); }

void BackendCall::arm(uint64_t longest_ns) {
  step_deadline_ns_ = std::min(deadline_ns_, now_ns() + longest_ns);
  timer_.arm_at_ns(step_deadline_ns_);
}

}  // namespace tidegate::l7
