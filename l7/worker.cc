// SPDX-License-Identifier: Apache-2.0
#include "l7/worker.h"

#include <algorithm>
#include <ctime>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "core/clock.h"
#include "core/open_files.h"
#include "core/thread.h"
#include "l7/limits.h"

namespace tidegate::l7 {

Worker::Worker(size_t index, WorkerShared& shared)
    : index_(index),
      shared_(shared),
      request_ring_(shared.records == nullptr ? nullptr : &shared.records->ring(index)),
      backends_(loop_, blocks_,
                {[this] { return admission_.recycle_one(); }, [this](uint32_t pool) { wake_first(pool); },
                 &shared.stats.backend_http2_connections, &shared.stats.backend_goaways, &memory_, &session_blocks_}),
      admission_(shared_.admission, shared_.stats, loop_, [this] { return backends_.drop_one_idle(); }),
      drain_timer_(loop_, [this] { for_each_connection([](ClientConnection& connection) { connection.abort(); }); }),
      trim_timer_(loop_, [this] { trim_transactions(); }) {
  loop_.count_calls_again(shared.stats.turns_ended);
}

Worker::~Worker() {
  // Transactions release connections and plans first. Then the plan is destroyed here, and not through a loop that has
  // ended.
  listeners_.clear();
  buried_.clear();
  connections_.clear();
  // A call that ends wakes waiters for its connection, so all transactions must still exist.
  for (const std::unique_ptr<Transaction>& transaction : transactions_) transaction->exchange_.policies.call.reset();
  transactions_.clear();
}

void Worker::start() {
  thread_ = start_thread("l7-worker-" + std::to_string(index_), [this] { loop_.run(); });
}

void Worker::stop() {
  loop_.stop();
  if (thread_.joinable()) thread_.join();
}

void Worker::adopt(std::shared_ptr<Adoption> adoption) {
  loop_.post([this, adoption = std::move(adoption)] { run_adoption(*adoption); });
}

void Worker::run_adoption(Adoption& adoption) {
  // Releasing the old pin at the end of this block retires it, unless requests in progress still hold it.
  for (const auto& [identity, staple] : adoption.staples) identity->set_staple(staple);
  plan_ = PlanPin::first(adoption.plan.release(), [this](LocalPlan* local) { retire(local); });
  for (const Endpoint& endpoint : adoption.close) {
    std::erase_if(listeners_, [&](const auto& listener) { return listener->bind() == endpoint; });
  }
  for (ListenSocket& socket : adoption.open) {
    listeners_.push_back(std::make_unique<ListenerSocket>(*this, std::move(socket)));
  }
  end_taken_down();
}

void Worker::retire(LocalPlan* local) {
  // Freeing a large Model takes time, so the main thread does it.
  shared_.main_loop.post([plan = local->release()] {});
  delete local;
}

void Worker::drain(uint64_t timeout_ms, std::function<void()> done) {
  loop_.post([this, timeout_ms, done = std::move(done)] {
    for (const std::unique_ptr<ListenerSocket>& listener : listeners_) listener->accept_all();
    begin_drain(timeout_ms, done);
    for_each_connection([](ClientConnection& connection) { connection.drain(); });
    finish_drain_if_idle();
  });
}

// The other process accepts what waits in the sockets' queues.
void Worker::leave(uint64_t timeout_ms, std::function<void()> done) {
  loop_.post([this, timeout_ms, done = std::move(done)] {
    leaving_ = true;
    begin_drain(timeout_ms, done);
    for_each_connection([](ClientConnection& connection) { connection.leave(); });
    finish_drain_if_idle();
  });
}

void Worker::begin_drain(uint64_t timeout_ms, std::function<void()> done) {
  draining_ = true;
  drained_ = std::move(done);
  listeners_.clear();
  backends_.close_all_idle();
  drain_timer_.arm_after_ms(timeout_ms);
}

// From the back: the last connection takes the place of one that ends, and the last one has had its turn already.
template <class Fn>
void Worker::for_each_connection(Fn fn) {
  for (size_t i = connections_.size(); i-- > 0;) fn(*connections_[i]);
}

void Worker::finish_drain_if_idle() {
  if (!draining_ || !connections_.empty() || !drained_) return;
  drain_timer_.cancel();
  shared_.main_loop.post(std::exchange(drained_, nullptr));
}

std::string_view Worker::http_date() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  if (now.tv_sec != date_s_) {
    date_s_ = now.tv_sec;
    tm utc{};
    ::gmtime_r(&now.tv_sec, &utc);
    char text[32];
    date_.assign(text, ::strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &utc));
  }
  return date_;
}

Transaction& Worker::take_transaction() {
  if (free_transactions_.empty()) {
    transactions_.push_back(std::make_unique<Transaction>(*this));
    transactions_.back()->place_ = transactions_.size() - 1;
    least_free_ = 0;
    return *transactions_.back();
  }
  Transaction& transaction = *free_transactions_.back();
  free_transactions_.pop_back();
  least_free_ = std::min(least_free_, free_transactions_.size());
  return transaction;
}

void Worker::give_back(Transaction* transaction) {
  if (transaction->queued_) {
    std::erase(queued_, transaction);
    transaction->queued_ = false;
  }
  free_transactions_.push_back(transaction);
  if (free_transactions_.size() <= kKeptTransactions || trim_timer_.armed()) return;
  least_free_ = free_transactions_.size();
  trim_timer_.arm_after_ms(kTransactionTrimMs);
}

// After a burst, frees the transactions that only the burst needed. Those that a steady load needs stay.
void Worker::trim_transactions() {
  const size_t spare = least_free_ > kKeptTransactions ? least_free_ - kKeptTransactions : 0;
  for (size_t i = 0; i < spare; ++i)
    free_transaction(free_transactions_[i]);  // transactions are taken from the back, so these are the oldest
  free_transactions_.erase(free_transactions_.begin(), free_transactions_.begin() + static_cast<ptrdiff_t>(spare));
  least_free_ = free_transactions_.size();
  if (least_free_ > kKeptTransactions) trim_timer_.arm_after_ms(kTransactionTrimMs);
}

void Worker::free_transaction(Transaction* transaction) {
  const size_t place = transaction->place_;
  std::swap(transactions_[place], transactions_.back());
  transactions_[place]->place_ = place;
  transactions_.pop_back();
}

WaitQueue& Worker::queue_of(const PoolRuntime& pool) {
  if (pool.id >= wait_queues_.size()) wait_queues_.resize(pool.id + 1);
  std::unique_ptr<WaitQueue>& queue = wait_queues_[pool.id];
  if (!queue) queue = std::make_unique<WaitQueue>();
  return *queue;
}

void Worker::wake_first(uint32_t pool) {
  if (pool >= wait_queues_.size() || !wait_queues_[pool]) return;
  WaitQueue::Waiter *first = wait_queues_[pool]->first(), *first_for_all = wait_queues_[pool]->first_for_all();
  if (first != nullptr) resume_later(first->transaction());
  if (first_for_all != nullptr && first_for_all != first) resume_later(first_for_all->transaction());
}

void Worker::resume_later(Transaction& transaction) {
  if (transaction.queued_) return;
  transaction.queued_ = true;
  queued_.push_back(&transaction);
  if (queued_.size() == 1) loop_.defer([this] { resume_queued(); });
}

void Worker::resume_queued() {
  // Takes one transaction at a time from the front: to resume it may end another one, which then leaves the list, or
  // may add one to the list.
  for (size_t turns = queued_.size(); turns > 0 && !queued_.empty(); --turns) {
    Transaction* next = queued_.front();
    queued_.erase(queued_.begin());
    next->queued_ = false;
    const bool last_of_round = queued_.empty();
    next->resume();
    if (last_of_round) return;  // if it has queued itself again, that has asked for another round
  }
  if (!queued_.empty()) loop_.defer([this] { resume_queued(); });
}

void Worker::write_log(const AccessRecord& record) {
  char line[kLongestLogLine];
  if (!shared_.log.ring(index_).push({line, shared_.log.format(record, line)})) stats().log_lines_dropped.add();
}

void Worker::accept(UniqueFd fd, const Endpoint& peer, const Endpoint& bind) {
  const Admission::Newcomer newcomer{fd.get(), peer.address, loop_.now_ns()};
  AddressTable::Hold hold;
  ConnectionRefusal refusal = admission_.admit_address(newcomer, hold);
  // The connections of a trusted proxy belong to its clients. This is checked last, because most peers are within their
  // bounds.
  if (refusal != ConnectionRefusal::none && trusts(peer.address, bind)) refusal = ConnectionRefusal::none;
  if (refusal == ConnectionRefusal::none) refusal = admission_.admit(newcomer);
  if (refusal != ConnectionRefusal::none) return stats().count_refusal(refusal);
  if (is_reserved_file(fd.get())) fd = under_lowest_number(std::move(fd));
  stats().connections.add();
  connections_.push_back(std::make_unique<ClientConnection>(*this, peer, bind, std::move(hold), connections_.size()));
  connections_.back()->open(std::move(fd));
}

bool Worker::trusts(const IpAddress& peer, const Endpoint& bind) const {
  const Plan& plan = plan_->plan();
  const uint32_t listener = find_listener(plan, bind);
  if (listener == kNone) return false;
  const Listener& config = plan.model().listeners[listener];
  return l7::trusts(config, peer) || sends_proxy_header(config, peer);
}

bool Worker::free_a_descriptor() { return backends_.drop_one_idle() || admission_.recycle_one(); }

void Worker::call_at_round_end(ClientConnection& connection) {
  if (connection.awaits_round_end) return;
  connection.awaits_round_end = true;
  at_round_end_.push_back(&connection);
  if (at_round_end_.size() == 1) loop_.defer([this] { end_round(); });
}

void Worker::end_round() {
  // One connection may add another, or end and leave the list.
  while (!at_round_end_.empty()) {
    ClientConnection* connection = at_round_end_.back();
    at_round_end_.pop_back();
    connection->awaits_round_end = false;
    connection->on_round_end();
  }
}

void Worker::bury(ClientConnection* connection) {
  if (std::exchange(connection->awaits_round_end, false)) std::erase(at_round_end_, connection);
  const size_t index = connection->index();
  if (index >= connections_.size() || connections_[index].get() != connection) return;
  if (buried_.empty()) {
    loop_.defer([this] {
      buried_.clear();
      finish_drain_if_idle();
    });
  }
  buried_.push_back(std::move(connections_[index]));
  if (index + 1 != connections_.size()) {
    connections_[index] = std::move(connections_.back());
    connections_[index]->set_index(index);
  }
  connections_.pop_back();
  admission_.leave();
}

}  // namespace tidegate::l7
