// SPDX-License-Identifier: Apache-2.0
// BackendPool: chooses the backend of a request. It is compiled from one Pool of one Snapshot: the backends that may
// get new work, and the tables of the pool's policy. It is immutable. What changes with each request is in the runtime
// state that it points to.
//
// Policies:
//   weighted_round_robin  a sequence in which each backend appears as often as its weight says, spread evenly, and one
//                         shared counter: exact shares across all workers, without a lock
//   least_requests        the smallest (in flight + 1) / weight; of many backends, the best of a random sample
//                         (Mitzenmacher, "The power of two choices", 2001)
//   consistent_hash       weighted Maglev over a keyed hash with bounded loads (Mirrokni, Thorup, Zadimoghaddam:
//                         "Consistent hashing with bounded loads", 2018): a backend at more than `load_bound` times its
//                         fair share passes the request on
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "conf/snapshot.h"
#include "core/hash.h"
#include "l7/backend/pool_runtime.h"

namespace tidegate::l7 {

class BackendConnections;

struct PoolMember {
  uint32_t index = 0;  // into Pool::backends
  uint32_t weight = 0;
  const Backend* config = nullptr;
  std::shared_ptr<BackendRuntime> runtime;
};

class BackendPool {
 public:
  // Borrows the snapshot, which its owner (Plan) keeps.
  BackendPool(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const HashKey& key);

  struct Question {
    uint64_t hash = 0;                                // for consistent_hash
    uint64_t random = 0;                              // for least_requests' sample
    uint64_t now_ns = 0;                              // monotonic
    bool is_retry = false;                            // it takes no turn of weighted_round_robin
    std::span<const uint32_t> tried;                  // backend indexes that this request has failed on
    const BackendConnections* connections = nullptr;  // backends that have no room there are passed over
  };
  struct Choice {
    const PoolMember* member = nullptr;
    bool full = false;  // without a member: some may be used, but each has its max_connections
  };
  // The member to use; none if the pool is down or full. An ejected backend is taken only if no other is left, and one
  // that was tried only if there is no other at all. A full backend is waited for; an ejected one is not taken instead.
  Choice choose(const Question& question) const;
  // The choice of consistent_hash if load and ejection did not count: what explain can say beforehand.
  const PoolMember* preferred(uint64_t hash) const;

  const Pool& config() const { return *config_; }
  PoolRuntime& runtime() const { return *runtime_; }
  const std::vector<PoolMember>& members() const { return members_; }
  // Of each backend of config(), those that get no new work included.
  const std::vector<std::shared_ptr<BackendRuntime>>& runtimes() const { return runtimes_; }

 private:
  enum class Strictness : uint8_t { healthy, not_tried, any };
  bool acceptable(const PoolMember& member, const Question& question, Strictness strictness) const;
  bool any_acceptable(const Question& question, Strictness strictness) const;
  const PoolMember* choose_among(const Question& question, Strictness strictness) const;
  const PoolMember* by_turn(const Question& question, Strictness strictness) const;
  const PoolMember* by_least_requests(const Question& question, Strictness strictness) const;
  const PoolMember* by_hash(const Question& question, Strictness strictness) const;
  void build_sequence();
  void build_table(const HashKey& key);

  const Pool* config_;
  std::shared_ptr<PoolRuntime> runtime_;
  std::vector<std::shared_ptr<BackendRuntime>> runtimes_;  // parallel to Pool::backends
  std::vector<PoolMember> members_;                        // those that may get new work
  uint64_t weight_sum_ = 0;
  std::vector<uint16_t> sequence_;  // weighted_round_robin: member positions
  std::vector<uint16_t> table_;     // consistent_hash: member positions by Maglev slot
};

// The turns of a weighted round robin: each member weight/sum of the time, as evenly spread as can be. At most
// kMaxTurns long (larger weights are scaled down; none falls to zero).
constexpr size_t kMaxTurns = 4096;
std::vector<uint16_t> spread_turns(std::span<const uint32_t> weights);

}  // namespace tidegate::l7
