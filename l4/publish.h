// SPDX-License-Identifier: Apache-2.0
// Publisher: one pointer to the tables in force. The control thread swaps it; workers read it once a burst, unlocked;
// the old tables die when every worker has said that it is past them (rte_rcu_qsbr).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "l4/forwarding.h"

struct rte_rcu_qsbr;

namespace tidegate::l4 {

class Publisher {
 public:
  explicit Publisher(uint32_t workers);
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Control thread. Returns when no worker can see the tables before; microseconds, as workers report once a burst and
  // are offline while they sleep.
  void publish(std::shared_ptr<const ForwardingTables> tables);
  // Control thread. Returns when every worker has ended the burst that it was at.
  void wait_for_workers();
  const std::shared_ptr<const ForwardingTables>& in_force() const { return in_force_; }  // control thread

  // Worker threads, each with its own number. What current() gave stays valid until quiescent() or offline().
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
