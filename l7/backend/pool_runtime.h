// SPDX-License-Identifier: Apache-2.0
// Runtime state of pools and backends: what the proxy has learned, and not the configuration. It lives outside every
// Snapshot under stable keys ("pool" and "pool/backend"), is shared by all workers, and survives every change of
// version.
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

// PeakEwma: the time that a backend's answers take, as an average that follows a rise at once and a fall slowly
// (Finagle's peak EWMA). It decays towards zero while no answer comes, so a backend that was slow once is tried again.
// Threads: any.
class PeakEwma {
 public:
  void observe(uint64_t sample_ns, uint64_t now_ns);
  double value_us(uint64_t now_ns) const;

 private:
  static constexpr double kDecayMs = 10'000;
  std::atomic<uint64_t> packed_{0};  // upper 32 bits: time (ms); lower 32 bits: average (us)
};

// The first cache line, with the state of the breaker, has what the choice of a backend reads. The line after it has
// the parts of the breaker's window.
struct alignas(64) BackendRuntime {
  BackendRuntime(uint32_t dense_id, uint32_t its_pool, uint32_t its_name)
      : id(dense_id), pool(its_pool), name(its_name) {}
  const uint32_t id;    // dense and never used twice: indexes a worker's connections
  const uint32_t pool;  // PoolRuntime::id
  const uint32_t name;  // of NameIds, for records of requests
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint64_t> ejected_until_ns{0};     // monotonic; 0: not ejected
  std::atomic<uint64_t> in_service_since_ns{0};  // monotonic; 0: since the start
  PeakEwma latency;
  std::atomic<uint32_t> consecutive_failures{0};
  // True if an operator took the backend down: it gets no new request, and its running work ends. The main thread sets
  // this before the workers get the Plan that says so. So a request that began under an older Plan does not choose it
  // either.
  std::atomic<bool> taken_down{false};
  Breaker breaker;
  std::atomic<uint64_t> requests{0};
  std::atomic<uint64_t> failures{0};
  std::atomic<uint64_t> ejections{0};
  std::atomic<uint64_t> not_accepted{0};  // connections that its kernel did not accept, because its queue was full
  // Monotonic: when its last answer began; when the first connection since then began that was not accepted (0: none).
  std::atomic<uint64_t> answered_ns{0}, not_accepted_since_ns{0};
  enum class Service : uint8_t { unknown, in, was_in, out };  // was_in: its present state is not known yet
  Service service = Service::unknown;  // belongs to the main thread: whether the Plan in force gives it new work

  bool ejected(uint64_t now_ns) const { return ejected_until_ns.load(std::memory_order_relaxed) > now_ns; }
  // A whole exchange went well.
  void note_success();
  // An exchange failed because of the backend. Returns true if the backend must be ejected: it is not ejected yet, and
  // has failed `eject_after` times in a row (0: never). After an ejection, one more failure is enough. One success
  // resets the count.
  bool note_failure(uint64_t now_ns, uint32_t eject_after);
  // A connection that began at `began_ns` was not accepted. Returns true if nothing has come from the backend for
  // `longest_ns`, so it is not only busy.
  bool was_silent(uint64_t began_ns, uint64_t now_ns, uint64_t longest_ns);
  // True if `acceptance`, the state of a connection that began at `began_ns`, shows that the queue of the backend's
  // kernel is full. If nothing answers at the address, the queue counts as full only if the backend has answered other
  // connections since.
  bool shows_full_queue(Acceptance acceptance, uint64_t began_ns) const {
    return acceptance == Acceptance::unacknowledged ||
           (acceptance == Acceptance::unanswered && answered_ns.load(std::memory_order_relaxed) >= began_ns);
  }
  // Ejects the backend. Returns false if another thread has ejected it meanwhile.
  bool eject(uint64_t now_ns, uint64_t eject_ns);
  // The share of its weight that the backend has now. In a slow start it grows from kSlowStartLeast to 1, in the
  // `slow_start_ns` after the backend came into service or its ejection ended. It is 1 if slow_start_ns is 0.
  double share_of_weight(uint64_t now_ns, uint64_t slow_start_ns) const;
  static constexpr double kSlowStartLeast = 0.1;
};

// The number of retries that a pool may add to its load (after Finagle's RetryBudget). It is a fraction of the requests
// that the pool gets. Unused retries are saved up for a while. A few retries per second are added, so a quiet pool can
// retry too.
class RetryBudget {
 public:
  void deposit(double fraction);
  // Takes one retry. Returns false if there is none. `now_ns` is monotonic.
  bool withdraw(uint64_t now_ns);
  double balance() const { return static_cast<double>(saved_.load(std::memory_order_relaxed)) / kOne; }

 private:
  static constexpr int64_t kOne = 1000;                      // a whole retry
  static constexpr int64_t kMostSaved = 100 * kOne;          // even after a long calm there is no storm of retries
  static constexpr uint64_t kFloorIntervalNs = 200'000'000;  // the floor: 5 a second ...
  static constexpr uint64_t kFloorBurst = 5;                 // ... and this many may come at once
  std::atomic<int64_t> saved_{0};
  std::atomic<uint64_t> floor_due_ns_{0};  // when all retries taken from the floor will be earned (GCRA)
};

struct PoolRuntime {
  PoolRuntime(uint32_t dense_id, uint32_t its_name) : id(dense_id), name(its_name) {}
  const uint32_t id;              // dense and never used twice: indexes a worker's queues
  const uint32_t name;            // of NameIds, for records of requests
  std::atomic<uint64_t> turn{0};  // position of weighted round robin in its sequence
  std::atomic<uint32_t> in_flight{0};
  std::atomic<uint32_t> waiting{0};             // requests in the queues of all workers
  std::atomic<uint64_t> waited{0};              // number of requests that ever waited in one
  std::atomic<uint64_t> pushed_out{0};          // number of those that lost their place to another
  std::atomic<uint64_t> disturbed_until_ns{0};  // monotonic: until then, some backend may be ejected
  std::atomic<uint64_t> breaker_opened{0}, breaker_closed{0};
  Mutex ejecting;  // held while a thread decides whether one more may be ejected
  Breaker breaker;
  RetryBudget retries;
};

// A place in a sequence of turns that all workers share.
using TurnCounter = std::atomic<uint64_t>;

class RuntimeRegistry {
 public:
  std::shared_ptr<PoolRuntime> pool(const std::string& name);
  std::shared_ptr<BackendRuntime> backend(const std::string& pool, const std::string& name);
  // The turn counter of a part of a pool. `part` distinguishes it from the pool's other parts.
  std::shared_ptr<TurnCounter> turns(const std::string& pool, const std::string& part);
  // Forgets entries that the model does not name and nobody holds, but only when there are far more entries than the
  // model names.
  void trim(const Model& model);
  // All names in the records of requests.
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
