// SPDX-License-Identifier: Apache-2.0
#include "l4/publish.h"

#include <rte_rcu_qsbr.h>

#include <cstdlib>
#include <new>

namespace tidegate::l4 {

void Publisher::FreeQsbr::operator()(rte_rcu_qsbr* qsbr) const { std::free(qsbr); }

Publisher::Publisher(uint32_t workers) {
  const size_t bytes = rte_rcu_qsbr_get_memsize(workers);
  const size_t whole_lines = (bytes + RTE_CACHE_LINE_SIZE - 1) / RTE_CACHE_LINE_SIZE * RTE_CACHE_LINE_SIZE;
  qsbr_.reset(static_cast<rte_rcu_qsbr*>(std::aligned_alloc(RTE_CACHE_LINE_SIZE, whole_lines)));
  if (qsbr_ == nullptr || rte_rcu_qsbr_init(qsbr_.get(), workers) != 0) throw std::bad_alloc();
  for (uint32_t worker = 0; worker < workers; ++worker) rte_rcu_qsbr_thread_register(qsbr_.get(), worker);
}

Publisher::~Publisher() = default;

void Publisher::publish(std::shared_ptr<const ForwardingTables> tables) {
  current_.store(tables.get(), std::memory_order_release);
  wait_for_workers();
  in_force_ = std::move(tables);
}

// Like rte_rcu_qsbr_synchronize(). But these two functions are inline, so TSan sees what they order.
void Publisher::wait_for_workers() {
  const uint64_t token = rte_rcu_qsbr_start(qsbr_.get());
  rte_rcu_qsbr_check(qsbr_.get(), token, true);
}

void Publisher::online(uint32_t worker) { rte_rcu_qsbr_thread_online(qsbr_.get(), worker); }
void Publisher::offline(uint32_t worker) { rte_rcu_qsbr_thread_offline(qsbr_.get(), worker); }
void Publisher::quiescent(uint32_t worker) { rte_rcu_qsbr_quiescent(qsbr_.get(), worker); }

}  // namespace tidegate::l4
