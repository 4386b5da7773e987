// SPDX-License-Identifier: Apache-2.0
// BackendPool: chooses the backend of a request. It is compiled from one Pool of one Snapshot: the backends that may
// get new work, in levels, and the tables of the pool's policy for each level. It is immutable. What changes with each
// request is in the runtime state that it points to.
//
// Levels: the backends of the proxy's own site (with prefer_site), those of others, and the backups. Each level gets
// what the ones before it cannot take. A level can take its healthy part of its weight, times `spare_capacity`.
//
// Policies (pool_policies.cc):
//   weighted_round_robin  a sequence in which each backend appears as often as its weight says, spread evenly, and one
//                         shared counter: exact shares across all workers, without a lock
//   least_requests        the smallest (in flight + 1) / weight; of many backends, the best of a random sample
//   random_of_two         the better of two random ones by the same measure (Mitzenmacher, "The power of two choices",
//                         2001)
//   peak_ewma             the better of two random ones by answer time x (in flight + 1) / weight
//   consistent_hash       weighted Maglev over a keyed hash with bounded loads (Mirrokni, Thorup, Zadimoghaddam:
//                         "Consistent hashing with bounded loads", 2018): a backend at more than `load_bound` times its
//                         fair share passes the request on
//   ring_hash             a ring of points (ring.h), with the same bound
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "conf/backend_names.h"
#include "conf/snapshot.h"
#include "core/hash.h"
#include "l7/backend/address.h"
#include "l7/backend/pool_runtime.h"
#include "l7/backend/ring.h"

namespace tidegate::l7 {

class BackendConnections;

struct PoolMember {
  uint32_t index = 0;  // into Pool::backends
  uint32_t weight = 0;
  uint32_t level = 0;
  const Backend* config = nullptr;
  std::shared_ptr<BackendRuntime> runtime;
  Breaker* breaker = nullptr;  // the backend's or the pool's; null: none
  std::string name;
  std::vector<BackendAddress> addresses;  // at least one; of one server
};

class BackendPool {
 public:
  static constexpr size_t kLevels = 3;
  // Which backends of the pool it has, and how they are ordered.
  struct Shape {
    uint32_t site = kNone;                // the proxy's own, for prefer_site
    std::span<const std::string> labels;  // those that have all of them
    const NameBook* names = nullptr;      // what the names of backends lead to
  };
  // Borrows the snapshot, which its owner (Plan) keeps.
  BackendPool(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const HashKey& key,
              const Shape& shape);
  BackendPool(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const HashKey& key)
      : BackendPool(snapshot, pool, registry, key, Shape{}) {}

  struct Question {
    uint64_t hash = 0;                                // for consistent_hash and ring_hash
    uint64_t random = 0;                              // for samples, slow starts and the choice of a level
    uint64_t now_ns = 0;                              // monotonic
    bool is_retry = false;                            // it takes no turn of weighted_round_robin
    std::span<const uint32_t> tried;                  // BackendRuntime::id of those that this request has failed on
    const BackendConnections* connections = nullptr;  // backends that have no room there are passed over
  };
  struct Choice {
    const PoolMember* member = nullptr;
    bool full = false;    // without a member: some may be used, but each has its max_connections
    bool broken = false;  // without a member: some may be used, but their breakers are open
  };
  // The member to use; none if the pool is down, full or broken. An ejected backend is taken only if no other is left,
  // and one that was tried only if there is no other at all. A full backend is waited for; an ejected one is not taken
  // instead. An open breaker holds always.
  Choice choose(const Question& question) const;
  // Whether this very member may be used: it is healthy and has room, and was not tried.
  bool may_use(const PoolMember& member, const Question& question) const {
    return acceptable(member, question, Strictness::healthy);
  }
  // The result of a try for the member's breaker, if `permit` is one of it; the permit is spent then. A change of the
  // breaker is counted and logged.
  void settle_breaker(const PoolMember& member, Breaker::Permit& permit, Breaker::Result result, uint64_t now_ns) const;
  // The choice of consistent_hash and ring_hash if load and ejection did not count: what explain can say beforehand.
  const PoolMember* preferred(uint64_t hash) const;
  // Charges a failure. True if the member is ejected now, for eject_ms.
  bool note_failure(const PoolMember& member, uint64_t now_ns) const;
  // A connection to the member was not accepted: counted, and further ones are bounded
  // (BackendConnections::note_not_accepted). When that begins, it is logged.
  void note_not_accepted(const PoolMember& member, BackendConnections& connections, uint32_t ordinal) const;
  // The part of the requests that each level gets at this time. They add up to 1 while anything is healthy.
  std::array<double, kLevels> shares(uint64_t now_ns) const;
  // Fewer backends are healthy than panic_threshold says: ejections do not count.
  bool in_panic(uint64_t now_ns) const;

  // It is in force from now on: backends that come into service start slowly, but not at the process's start.
  // Main thread.
  void enter_service(uint64_t now_ns, bool at_start) const;

  const Pool& config() const { return *config_; }
  PoolRuntime& runtime() const { return *runtime_; }
  const std::vector<PoolMember>& members() const { return members_; }
  // Of each backend of config(), those that get no new work included.
  const std::vector<std::shared_ptr<BackendRuntime>>& runtimes() const { return runtimes_; }
  // Each server of each backend: the endpoints of a name, or the backend itself.
  struct Server {
    uint32_t index;  // into Pool::backends
    std::string name;
    std::shared_ptr<BackendRuntime> runtime;
  };
  const std::vector<Server>& servers() const { return servers_; }

 private:
  enum class Strictness : uint8_t { healthy, not_tried, any };
  enum class Obstacle : uint8_t { none, unfit, breaker, full };
  struct Level {
    uint32_t first = 0, count = 0;      // of members_
    uint64_t weight = 0;                // of its members
    uint64_t weight_configured = 0;     // with those that get no new work
    std::vector<uint16_t> sequence;     // weighted_round_robin: positions from `first`
    std::vector<uint16_t> table;        // consistent_hash: likewise, by Maglev slot
    HashRing ring;                      // ring_hash: likewise
    std::shared_ptr<TurnCounter> turn;  // weighted_round_robin
  };
  // How much of each level is ejected. While anything may be, it is looked at again every kHealthAgeNs.
  struct Health {
    std::atomic<uint64_t> looked_ns{0};
    std::array<std::atomic<uint64_t>, kLevels> ejected_weight{};
  };
  static constexpr uint64_t kHealthAgeNs = 20'000'000;

  Obstacle obstacle(const PoolMember& member, const Question& question, Strictness strictness) const;
  bool acceptable(const PoolMember& member, const Question& question, Strictness strictness) const {
    return obstacle(member, question, strictness) == Obstacle::none;
  }
  bool any_acceptable(const Level& level, const Question& question, Strictness strictness) const;
  bool starts_fast_enough(const PoolMember& member, uint64_t random, uint64_t now_ns) const;
  double load_of(const PoolMember& member, uint64_t now_ns) const;
  std::span<const PoolMember> members_of(const Level& level) const {
    return std::span(members_).subspan(level.first, level.count);
  }
  const PoolMember* choose_among_levels(const Question& question, Strictness strictness) const;
  size_t draw_level(const Question& question) const;
  const PoolMember* choose_among(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* by_turn(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* by_least_requests(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* of_two(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* by_table(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* by_ring(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* first_acceptable(const Level& level, const Question& question, Strictness strictness) const;
  bool is_within_bound(const Level& level, const PoolMember& member, double total) const;
  uint64_t ejected_weight(size_t level, uint64_t now_ns) const;
  void look_at_health(uint64_t now_ns) const;
  void add_members(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const Shape& shape);
  void add_backend(const PoolMember& common, bool usable, RuntimeRegistry& registry, const Shape& shape);
  void add_server(PoolMember&& member, bool usable);
  void build_level(size_t level, RuntimeRegistry& registry, const HashKey& key, const Shape& shape);

  const Pool* config_;
  uint64_t slow_start_ns_;
  std::shared_ptr<PoolRuntime> runtime_;
  std::vector<std::shared_ptr<BackendRuntime>> runtimes_;  // parallel to Pool::backends
  std::vector<Server> servers_;
  std::vector<PoolMember> members_;  // those that may get new work, by level
  std::array<Level, kLevels> levels_;
  std::array<double, kLevels> calm_shares_{};  // while nothing is ejected
  uint64_t weight_configured_ = 0;
  std::unique_ptr<Health> health_;
};

// The turns of a weighted round robin: each member weight/sum of the time, as evenly spread as can be. At most
// kMaxTurns long (larger weights are scaled down; none falls to zero).
constexpr size_t kMaxTurns = 4096;
std::vector<uint16_t> spread_turns(std::span<const uint32_t> weights);

}  // namespace tidegate::l7
