// SPDX-License-Identifier: Apache-2.0
// Publisher: one pointer to the tables in force. The control thread swaps it. Workers read it once per burst without a
// lock. The old tables are freed when every worker has reported that it no longer uses them (rte_rcu_qsbr).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "l4/plan/forwarding.h"

struct rte_rcu_qsbr;

namespace tidegate::l4 {

class Publisher {
 public:
  explicit Publisher(uint32_t workers);
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Control thread. Returns when no worker can see the previous tables. That takes microseconds, because workers report
  // once per burst and are offline while they sleep.
  void publish(std::shared_ptr<const ForwardingTables> tables);
  // Control thread. Returns when every worker has ended its current burst.
  void wait_for_workers();
  const std::shared_ptr<const ForwardingTables>& in_force() const { return in_force_; }  // control thread

  // Worker threads; each passes its own number. What current() returned stays valid until quiescent() or offline().
  const ForwardingTables* current() const { return current_.load(std::memory_order_acquire); }
  void online(uint32_t worker);
  void offline(uint32_t worker);
  void quiescent(uint32_t worker);

 private:
  struct FreeQsbr {
    void operator()(rte_rcu_qsbr* qsbr) const;
  };
  std::unique_ptr<rte_rcu_qsbr, FreeQsbr> qsbr_;
  std::atomic<const ForwardingTables*> current_{nullptr};
  std::shared_ptr<const ForwardingTables> in_force_;
};

}  // namespace tidegate::l4
