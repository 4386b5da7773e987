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
#include "core/mutex.h"
#include "l7/backend/acceptance.h"
#include "l7/backend/breaker.h"
#include "l7/limits.h"
#include "l7/name_ids.h"

namespace tidegate::l7 {

// How long a backend's answers take: an average that follows a rise at once and a fall slowly (Finagle's peak EWMA).
// It decays to nothing while no answer comes, so that a backend that was slow once is asked again. Threads: any.
class PeakEwma {
 public:
  void observe(uint64_t sample_ns, uint64_t now_ns);
  double value_us(uint64_t now_ns) const;

 private:
  static constexpr double kDecayMs = 10'000;
  std::atomic<uint64_t> packed_{0};  // 32 bits when (ms), 32 bits average (us)
};

struct BackendRuntime {
  BackendRuntime(uint32_t dense_id, uint32_t its_pool, uint32_t its_name)
      : id(dense_id), pool(its_pool), name(its_name) {}
  const uint32_t id;    // dense and never used twice: indexes a worker's connections
  const uint32_t pool;  // PoolRuntime::id
  const uint32_t name;  // of NameIds, for records of requests
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint32_t> consecutive_failures{0};
  std::atomic<uint64_t> ejected_until_ns{0};  // monotonic; 0: not ejected
  // An operator took it down: no new request, and what runs ends. Set by the main thread before the workers get the
  // Plan that says so, so that a request that began under an older Plan does not choose it either.
  std::atomic<bool> taken_down{false};
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> failures{0};
  std::atomic<uint64_t> ejections{0};
  std::atomic<uint64_t> not_accepted{0};  // connections that its kernel did not take: its queue was full
  // Monotonic: when its last answer began, and since when no connection was accepted and nothing answered (0: it is).
  std::atomic<uint64_t> answered_ns{0}, not_accepted_since_ns{0};
  std::atomic<uint64_t> in_service_since_ns{0};  // monotonic; 0: since the start
  Breaker breaker;
  PeakEwma latency;
  enum class Service : uint8_t { unknown, in, was_in, out };  // was_in: while it is being found out
  Service service = Service::unknown;  // the main thread's: whether the Plan in force gives it new work

  bool ejected(uint64_t now_ns) const { return ejected_until_ns.load(std::memory_order_relaxed) > now_ns; }
  // A whole exchange went well.
  void note_success();
  // It failed for a reason that is the backend's. True when it is to be ejected: not ejected yet, and it has failed
  // `eject_after` times in a row (0: never). When an ejection is over one failure more is enough; one success forgives
  // all.
  bool note_failure(uint64_t now_ns, uint32_t eject_after);
  // A connection that began at `began_ns` was not accepted. True: nothing has come from the backend for `longest_ns`,
  // so it is not only busy.
  bool was_silent(uint64_t began_ns, uint64_t now_ns, uint64_t longest_ns);
  // What is known of a connection that began then tells that the backend's kernel has no room for it. That nobody
  // answers at all at the address does not, as long as the backend has not answered others since.
  bool shows_full_queue(Acceptance acceptance, uint64_t began_ns) const {
    return acceptance == Acceptance::unacknowledged ||
           (acceptance == Acceptance::unanswered && answered_ns.load(std::memory_order_relaxed) >= began_ns);
  }
  // False: another thread has ejected it meanwhile.
  bool eject(uint64_t now_ns, uint64_t eject_ns);
  // The part of its weight that it gets while it starts slowly: from kSlowStartLeast to 1, over `slow_start_ns` from
  // when it came into service or its ejection ended. 1 where slow_start_ns is 0.
  double share_of_weight(uint64_t now_ns, uint64_t slow_start_ns) const;
  static constexpr double kSlowStartLeast = 0.1;
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
  PoolRuntime(uint32_t dense_id, uint32_t its_name) : id(dense_id), name(its_name) {}
  const uint32_t id;              // dense and never used twice: indexes a worker's queues
  const uint32_t name;            // of NameIds, for records of requests
  std::atomic<uint64_t> turn{0};  // weighted round robin's place in its sequence
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint32_t> waiting{0};             // requests in the queues of all workers
  std::atomic<uint64_t> waited{0};              // requests that ever came into one
  std::atomic<uint64_t> disturbed_until_ns{0};  // monotonic: until then some backend may be ejected
  std::atomic<uint64_t> breaker_opened{0}, breaker_closed{0};
  Mutex ejecting;  // held while it is decided whether one more may be ejected
  Breaker breaker;
  RetryBudget retries;
};

// A place in a sequence of turns that all workers share.
using TurnCounter = std::atomic<uint64_t>;

class RuntimeRegistry {
 public:
  std::shared_ptr<PoolRuntime> pool(const std::string& name);
  std::shared_ptr<BackendRuntime> backend(const std::string& pool, const std::string& name);
  // Of a part of a pool: `part` tells it from the pool's other parts.
  std::shared_ptr<TurnCounter> turns(const std::string& pool, const std::string& part);
  // Forgets what the model does not name and nobody holds, once such entries outnumber the others.
  void trim(const Model& model);
  // The names of everything that records of requests name.
  NameIds& names() { return names_; }
  const NameIds& names() const { return names_; }

 private:
  NameIds names_{kRecordedNames};
  std::map<std::string, std::shared_ptr<PoolRuntime>> pools_;
  std::map<std::string, std::shared_ptr<BackendRuntime>> backends_;
  std::map<std::string, std::shared_ptr<TurnCounter>> turns_;
  uint32_t next_backend_ = 0, next_pool_ = 0;
};

}  // namespace tidegate::l7
