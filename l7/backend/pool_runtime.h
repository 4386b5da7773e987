// SPDX-License-Identifier: Apache-2.0
// Runtime state of pools and backends: what is known by doing, not by configuration. It lives outside every Snapshot
// under stable keys ("pool" and "pool/backend"), is shared by all workers, and survives every change of version.
//
// Threads: the counters are atomics that any worker may touch; the registry belongs to the main thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "conf/model.h"

namespace tidegate::l7 {

struct BackendRuntime {
  BackendRuntime(uint32_t dense_id, uint32_t its_pool) : id(dense_id), pool(its_pool) {}
  const uint32_t id;    // dense and never used twice: indexes a worker's connections
  const uint32_t pool;  // PoolRuntime::id
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint32_t> consecutive_failures{0};
  std::atomic<uint64_t> ejected_until_ns{0};  // monotonic; 0: not ejected
  // An operator took it down: no new request, and what runs ends. Set by the main thread before the workers get the
  // Plan that says so, so that a request that began under an older Plan does not choose it either.
  std::atomic<bool> taken_down{false};
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> failures{0};
  std::atomic<uint64_t> ejections{0};

  bool ejected(uint64_t now_ns) const { return ejected_until_ns.load(std::memory_order_relaxed) > now_ns; }
  // A whole exchange went well.
  void note_success();
  // It failed for a reason that is the backend's. True when this failure ejected it. When the time is over one failure
  // more ejects it again; one success forgives all.
  bool note_failure(uint64_t now_ns, uint32_t eject_after, uint64_t eject_ns);
};

// How many retries a pool may add to the load that failed: a fraction of the requests it gets, saved up for a while,
// and a floor of so many a second so that a quiet pool can retry at all (after Finagle's RetryBudget).
class RetryBudget {
 public:
  void deposit(double fraction);
  // Takes one retry out; false when there is none. `now_ns` monotonic.
  bool withdraw(uint64_t now_ns);
  double balance() const { return static_cast<double>(saved_.load(std::memory_order_relaxed)) / kOne; }

 private:
  static constexpr int64_t kOne = 1000;                      // a whole retry
  static constexpr int64_t kMostSaved = 100 * kOne;          // after a long calm, no storm either
  static constexpr uint64_t kFloorIntervalNs = 200'000'000;  // the floor: 5 a second ...
  static constexpr uint64_t kFloorBurst = 5;                 // ... of which as many may come at once
  std::atomic<int64_t> saved_{0};
  std::atomic<uint64_t> floor_due_ns_{0};  // when all that the floor gave will have been earned (GCRA)
};

struct PoolRuntime {
  explicit PoolRuntime(uint32_t dense_id) : id(dense_id) {}
  const uint32_t id;              // dense and never used twice: indexes a worker's queues
  std::atomic<uint64_t> turn{0};  // weighted round robin's place in its sequence
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint32_t> waiting{0};  // requests in the queues of all workers
  std::atomic<uint64_t> waited{0};   // requests that ever came into one
  RetryBudget retries;
};

class RuntimeRegistry {
 public:
  std::shared_ptr<PoolRuntime> pool(const std::string& name);
  std::shared_ptr<BackendRuntime> backend(const std::string& pool, const std::string& name);
  // Forgets what the model does not name and nobody holds, once such entries outnumber the others.
  void trim(const Model& model);

 private:
  std::map<std::string, std::shared_ptr<PoolRuntime>> pools_;
  std::map<std::string, std::shared_ptr<BackendRuntime>> backends_;
  uint32_t next_backend_ = 0, next_pool_ = 0;
};

}  // namespace tidegate::l7
