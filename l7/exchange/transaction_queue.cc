// SPDX-License-Identifier: Apache-2.0
// The step in which a transaction waits until a backend of its pool has room for one more connection.
#include "core/address_table.h"
#include "core/clock.h"
#include "l7/exchange/transaction.h"
#include "l7/exchange/wait_queue.h"
#include "l7/worker.h"

namespace tidegate::l7 {

Step Transaction::queue() {
  if (nobody_waits()) return fail(Failure::client_gone);
  if (!waiter_.waits() && (waiter_.is_pushed_out() || !join_queue())) {
    if (waiter_.is_pushed_out()) failure_detail_ = "pushed_out";
    leave_queue();
    if (const std::optional<Step> next = take_backend_past_accepted()) return *next;
    return fail(failure_of_tries(Failure::pool_busy));
  }
  if (worker_.queue_of(exchange_.pool->runtime()).is_next(waiter_)) {
    if (const std::optional<Step> next = take_backend()) {
      leave_queue(true);
      return *next;
    }
  }
  if (!expired()) return Step::suspend;
  const Failure over = own_time_over();
  return fail(over != Failure::none ? over : Failure::queue_timeout);
}

// The queue has no place. What keeps the request from its backend may be no bound of the operator's, but what the
// backend's kernel took lately. Then the request waits for that kernel, as every request does without this bound: TCP
// sends again until the connection is accepted. It is not refused.
std::optional<Step> Transaction::take_backend_past_accepted() {
  exchange_.attempts.past_accepted = true;
  return take_backend();
}

// Waiting requests are not overtaken. But waiting requests of an older version may wait for backends that no longer
// exist, while this request knows new ones.
bool Transaction::others_wait_first() {
  if (exchange_.pool->runtime().waiting.load(std::memory_order_relaxed) == 0) return false;
  const WaitQueue::Waiter* first = worker_.queue_of(exchange_.pool->runtime()).first_for_all();
  return first != nullptr && first->transaction().exchange_.pool == exchange_.pool;
}

bool Transaction::join_queue() {
  WaitQueue& queue = worker_.queue_of(exchange_.pool->runtime());
  const WaitQueue::Joined joined = queue.join(waiter_, client_hash(), exchange_.pool->config().queue_size,
                                              exchange_.attempts.failed_count > 0, exchange_.queue_priority());
  if (!joined) return false;
  if (joined.pushed_out != nullptr) {
    exchange_.pool->runtime().pushed_out.fetch_add(1, std::memory_order_relaxed);
    worker_.resume_later(joined.pushed_out->transaction());
  }
  exchange_.pool->runtime().waiting.fetch_add(1, std::memory_order_relaxed);
  exchange_.pool->runtime().waited.fetch_add(1, std::memory_order_relaxed);
  exchange_.timing.queued_since_ns = worker_.loop().now_ns();
  wait_at_most_ns(exchange_.pool->config().queue_timeout_ms * kNsPerMs);
  // A backend may have come back since the first waiter checked. No connection would report that.
  worker_.wake_first(exchange_.pool->runtime().id);
  return true;
}

// This waiter may have been woken for a free place that it did not take. So the next waiter is woken.
void Transaction::leave_queue(bool with_its_turn) {
  if (!waiter_.waits() && !waiter_.is_pushed_out()) return;
  with_its_turn ? WaitQueue::take_turn(waiter_) : WaitQueue::leave(waiter_);
  exchange_.pool->runtime().waiting.fetch_sub(1, std::memory_order_relaxed);
  exchange_.timing.queued_ns += worker_.loop().now_ns() - exchange_.timing.queued_since_ns;
  worker_.wake_first(exchange_.pool->runtime().id);
}

// Identifies the client whose share of the queue this request uses: the client behind trusted proxies, and for IPv6 its
// /64.
uint64_t Transaction::client_hash() const {
  const std::optional<IpAddress> address = IpAddress::parse(exchange_.client_address);
  const HashKey& key = exchange_.plan->plan().hash_key;
  return address ? siphash13(key, AddressTable::group_of(*address)) : siphash13(key, exchange_.client_address);
}

}  // namespace tidegate::l7
