// SPDX-License-Identifier: Apache-2.0
// What follows a failed try: who is charged, and whether another backend is asked. failure.def decides. This file looks
// up the row and applies it.
#include <algorithm>
#include <utility>

#include "conf/model/pool.h"
#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {

// A try has failed before any byte of an answer was sent. Tries again if that is safe and within the budget, otherwise
// answers with the failure.
Step Transaction::attempt_failed(Failure failure) {
  if (!backend_->failure_detail().empty()) failure_detail_ = backend_->failure_detail();
  failure = what_happened(failure);
  if (failure == Failure::not_accepted) note_not_accepted();
  if (!may_retry(failure)) return fail(failure);
  if (info(failure).retry == Retry::fresh) {
    exchange_.attempts.fresh_only = true;
  } else if (info(failure).retry == Retry::unaccepted) {
    ++exchange_.attempts.not_accepted;
    --exchange_.attempts.count;
  } else if (info(failure).retry == Retry::refused) {
    // The backend does not count as failed: it may take the request on another connection.
  } else if (exchange_.attempts.failed_count < exchange_.attempts.failed.size()) {
    exchange_.attempts.failed[exchange_.attempts.failed_count++] = exchange_.attempts.member->runtime->id;
  }
  if (Attempts& attempts = exchange_.attempts; attempts.recorded_tries < attempts.failed_tries.size()) {
    attempts.failed_tries[attempts.recorded_tries++] = {attempts.backend_name_id, failure};
  }
  exchange_.attempts.last_failure = failure;
  charge_backend(failure);
  if (failure != Failure::not_accepted) worker_.stats().retries.add();
  release_backend(false);
  return Step::choose;
}

// Gives up the present connection, because the backend's kernel has not accepted it. The request can go elsewhere or
// wait.
bool Transaction::not_accepted() {
  if (exchange_.attempts.past_accepted) return false;
  const BackendRuntime& runtime = *exchange_.attempts.member->runtime;
  if (!runtime.shows_full_queue(backend_->acceptance(), exchange_.timing.connecting_since_ns)) return false;
  note_not_accepted();
  return may_retry(Failure::not_accepted);
}

void Transaction::note_not_accepted() {
  Attempts& attempts = exchange_.attempts;
  if (std::exchange(attempts.told_not_accepted, true)) return;
  exchange_.pool->note_not_accepted(*attempts.member, worker_.backends(), attempts.ordinal);
}

// Finds why a backend closed the connection without an answer. There are three cases.
Failure Transaction::what_happened(Failure failure) const {
  // The queue of a unix socket is full, and no other exchange runs there. So no place can get free, and waiting does
  // not help.
  if (backend_->failure() == Failure::not_accepted && exchange_.attempts.ordinal == 1) return Failure::connect_failed;
  if (failure != Failure::backend_closed) return failure;
  // The backend closed an idle connection at the moment when we used the connection again.
  if (backend_->reused() && !backend_->anything_received()) return Failure::stale_connection;
  // The backend gave up the request, because the client had not sent the whole body. Every backend does that after some
  // time.
  return exchange_.patience.waiting() ? Failure::gave_up_waiting : failure;
}

// Charges the present backend with a failure, if the table blames it.
void Transaction::charge_backend(Failure failure) {
  if (exchange_.attempts.member == nullptr) return;
  const Blame blame = info(failure).blame;
  if (blame == Blame::backend || (blame == Blame::slow_backend && was_waited_for()) ||
      (blame == Blame::silent_backend && was_silent())) {
    note_backend_failure();
  }
}

void Transaction::note_backend_failure() {
  if (exchange_.pool->note_failure(*exchange_.attempts.member, worker_.loop().now_ns())) {
    worker_.stats().ejections.add();
  }
  settle_breaker(Breaker::Result::failed);
}

// The answer's head is there. Evaluates what its status and its time say about the backend.
void Transaction::judge_answer() {
  exchange_.attempts.member->runtime->answered_ns.store(exchange_.timing.first_byte_ns, std::memory_order_relaxed);
  const Pool& config = exchange_.pool->config();
  const uint64_t took_ns = exchange_.timing.first_byte_ns - exchange_.timing.sent_ns;
  if (config.policy == PoolPolicy::peak_ewma) {
    exchange_.attempts.member->runtime->latency.observe(took_ns, exchange_.timing.first_byte_ns);
  }
  if (config.count_5xx && exchange_.response.status >= 500) {
    exchange_.attempts.failed_by_status = true;
    return note_backend_failure();
  }
  const bool slow = config.breaker.slow_ms != 0 && took_ns > config.breaker.slow_ms * kNsPerMs;
  settle_breaker(slow ? Breaker::Result::slow : Breaker::Result::good);
}

// Once for each try. If a body breaks off later, only ejection counts it.
void Transaction::settle_breaker(Breaker::Result result) {
  exchange_.pool->settle_breaker(*exchange_.attempts.member, exchange_.attempts.permit, result,
                                 worker_.loop().now_ns());
}

// The request's time is over, and during at least half of it the exchange waited for this backend without an answer.
bool Transaction::was_waited_for() const {
  if (exchange_.timing.first_byte_ns != 0) return false;
  const uint64_t now_ns = worker_.loop().now_ns();
  return now_ns - exchange_.timing.sent_ns >= (now_ns - exchange_.timing.started_ns) / 2;
}

// The backend has accepted no connection for this time, and has answered nobody meanwhile.
bool Transaction::was_silent() const {
  return exchange_.attempts.member->runtime->was_silent(exchange_.timing.connecting_since_ns, worker_.loop().now_ns(),
                                                        exchange_.pool->config().connect_timeout_ms * kNsPerMs);
}

// The answer has one of the route's `retry_statuses`. If nobody else can be asked, it is the client's. It is judged as
// a stream that the backend broke off: idempotent methods, by the budget.
bool Transaction::retries_status() {
  if (exchange_.route == nullptr) return false;
  const std::vector<uint32_t>& statuses = exchange_.route->retry_statuses;
  if (std::find(statuses.begin(), statuses.end(), exchange_.response.status) == statuses.end()) return false;
  if (exchange_.tunnel || !exchange_.request.upgrade.empty() || !another_is_free()) return false;
  if (!may_retry(Failure::stream_reset)) return false;
  Attempts& attempts = exchange_.attempts;
  if (attempts.failed_count < attempts.failed.size()) {
    attempts.failed[attempts.failed_count++] = attempts.member->runtime->id;
  }
  if (attempts.recorded_tries < attempts.failed_tries.size()) {
    attempts.failed_tries[attempts.recorded_tries++] = {attempts.backend_name_id, Failure::none};
  }
  attempts.last_failure = Failure::none;
  exchange_.response = ResponseHead();
  exchange_.timing.first_byte_ns = 0;
  worker_.stats().retries.add();
  release_backend(false);
  return true;
}

bool Transaction::may_retry(Failure failure) {
  const Retry retry = info(failure).retry;
  if (retry == Retry::never || exchange_.mirrored) return false;
  if (retry == Retry::unaccepted) {
    if (exchange_.attempts.not_accepted >= kNotAcceptedTries) return false;
    if (!backend_->connected()) return true;  // nothing of the request was sent
  }
  // RFC 9110 §9.2.2: a request that a backend may have begun to process is repeated only if it is idempotent, and only
  // while every byte of it is still there.
  const bool sent_body = exchange_.outcome.request_bytes > 0 && !exchange_.body_at_hand;
  if (retry != Retry::unsent && retry != Retry::refused && (sent_body || !exchange_.request.is_idempotent())) {
    return false;
  }
  // RFC 9113 §8.7: a backend that refused a stream has not begun to act on it.
  if (retry == Retry::refused) {
    const uint32_t attempts = std::max<uint32_t>(1, exchange_.pool->config().retry_attempts);
    return exchange_.attempts.count <= attempts &&
           (exchange_.body_at_hand || exchange_.outcome.request_bytes == kept_body_.size());
  }
  if (retry == Retry::unaccepted) return true;
  if (retry == Retry::fresh) return !exchange_.attempts.fresh_only;
  const Pool& config = exchange_.pool->config();
  if (exchange_.attempts.count > config.retry_attempts || config.retry_budget <= 0 || !others_are_left(retry))
    return false;
  // A request that was not sent simply moves on. No backend has worked on it yet, so it adds no load.
  if (retry == Retry::unsent || exchange_.pool->runtime().retries.withdraw(worker_.loop().now_ns())) return true;
  worker_.stats().retries_denied.add();
  return false;
}

// The question to the pool for a retry.
BackendPool::Question Transaction::question_of_retry() const {
  return {.now_ns = worker_.loop().now_ns(),
          .is_retry = true,
          .tried = {exchange_.attempts.failed.data(), exchange_.attempts.failed_count},
          .connections = &worker_.backends()};
}

// Whether there is a backend that this request has not tried and that could take it, now or after a wait. If the
// request was not sent, another address of a tried backend counts too.
bool Transaction::others_are_left(Retry retry) const {
  if (exchange_.pool->others_are_left(exchange_.attempts.member, question_of_retry())) return true;
  return retry == Retry::unsent && exchange_.attempts.member->addresses.size() > exchange_.attempts.count;
}

// True if another backend, in service and not tried, could take this request at once. An answer is thrown away only in
// this case.
bool Transaction::another_is_free() const {
  const BackendPool::Question question = question_of_retry();
  const std::vector<PoolMember>& members = exchange_.pool->members();
  return std::any_of(members.begin(), members.end(), [&](const PoolMember& member) {
    return &member != exchange_.attempts.member && exchange_.pool->may_use(member, question);
  });
}

// The failure of a request that finds no backend now: that of its last try. It is `now` if no try has failed yet, or if
// the last backend answered with a status that is tried again.
Failure Transaction::failure_of_tries(Failure now) const {
  const Attempts& attempts = exchange_.attempts;
  return attempts.failed_count == 0 || attempts.last_failure == Failure::none ? now : attempts.last_failure;
}

}  // namespace tidegate::l7
