// SPDX-License-Identifier: Apache-2.0
// BackendPool: chooses the backend of a request. It joins the tables of one Pool of one Snapshot (PoolTables) with
// runtime state. It is immutable. What changes with each request is in the runtime state that it points to.
//
// Levels: the backends of the proxy's own site (with prefer_site), those of other sites, and the backups. Each level
// gets what the earlier levels cannot take. A level can take the healthy part of its weight, times `spare_capacity`.
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

#include "conf/model/pool.h"
#include "conf/snapshot.h"
#include "core/hash.h"
#include "l7/backend/pool_runtime.h"
#include "l7/plan/backend_address.h"
#include "l7/plan/pool_tables.h"

namespace tidegate::l7 {

class BackendConnections;

// The first cache line of a member has all that a choice reads.
struct alignas(64) PoolMember {
  uint32_t index = 0;  // index into Pool::backends
  uint32_t weight = 0;
  uint32_t level = 0;
  const Backend* config = nullptr;
  std::shared_ptr<BackendRuntime> runtime;
  Breaker* breaker = nullptr;  // the backend's or the pool's; null: none
  std::string name;
  std::vector<BackendAddress> addresses;  // at least one, and all of one server
};

class BackendPool {
 public:
  static constexpr size_t kLevels = PoolTables::kLevels;
  // Borrows the snapshot, which is kept by the owner (Plan). `tables`: of this pool and these labels.
  BackendPool(const Snapshot& snapshot, uint32_t pool, std::shared_ptr<const PoolTables> tables,
              RuntimeRegistry& registry, std::span<const std::string> labels);
  BackendPool(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const HashKey& key,
              const PoolShape& shape = {})
      : BackendPool(snapshot, pool, std::make_shared<const PoolTables>(make_tables(snapshot, pool, key, shape)),
                    registry, shape.labels) {}

  struct Question {
    uint64_t hash = 0;      // for consistent_hash and ring_hash
    uint64_t random = 0;    // for samples, slow starts and the choice of a level
    uint64_t now_ns = 0;    // monotonic
    bool is_retry = false;  // a retry takes no turn of weighted_round_robin
    // BackendRuntime::id of the backends on which this request has failed
    std::span<const uint32_t> tried;
    const BackendConnections* connections = nullptr;  // backends that have no room there are skipped
    bool past_accepted = false;                       // ignores the bound of note_not_accepted() there
  };
  struct Choice {
    const PoolMember* member = nullptr;
    bool full = false;    // no member was chosen: some may be used, but each has its max_connections
    bool broken = false;  // no member was chosen: some may be used, but their breakers are open
  };
  // The member to use; none if the pool is down, full or broken. An ejected backend is taken only if no other is left.
  // A backend that was tried already is taken only if there is no other at all. The request waits for a full backend,
  // and does not take an ejected one instead. An open breaker is always respected.
  Choice choose(const Question& question) const;
  // Whether exactly this member may be used: it is healthy, has room, and was not tried.
  bool may_use(const PoolMember& member, const Question& question) const {
    return acceptable(member, question, Strictness::healthy);
  }
  // Whether a member besides `present` could take the request, now or when it has room: it was not tried, and its
  // breaker would let the request through. Ejections do not count.
  bool others_are_left(const PoolMember* present, const Question& question) const;
  // Reports the result of a try to the member's breaker, if `permit` belongs to it. The permit is used up then. A
  // change of the breaker is counted and logged.
  void settle_breaker(const PoolMember& member, Breaker::Permit& permit, Breaker::Result result, uint64_t now_ns) const;
  // The choice of consistent_hash and ring_hash without load and ejections. explain shows it, because it is known
  // before the request.
  const PoolMember* preferred(uint64_t hash) const;
  // Charges the member with a failure. Returns true if the member is now ejected, for eject_ms.
  bool note_failure(const PoolMember& member, uint64_t now_ns) const;
  // A connection to the member was not accepted. Counts it, and bounds further ones
  // (BackendConnections::note_not_accepted). The beginning of this state is logged.
  void note_not_accepted(const PoolMember& member, BackendConnections& connections, uint32_t ordinal) const;
  // The part of the requests that each level gets at this time. If anything is healthy, they add up to 1.
  std::array<double, kLevels> shares(uint64_t now_ns) const;
  // True if fewer backends are healthy than panic_threshold requires. Then ejections do not count.
  bool in_panic(uint64_t now_ns) const;

  // Call it when the pool comes into force. Backends that come into service start slowly, except at the start of the
  // process. Main thread.
  void enter_service(uint64_t now_ns, bool at_start) const;

  const Pool& config() const { return *config_; }
  PoolRuntime& runtime() const { return *runtime_; }
  const std::vector<PoolMember>& members() const { return members_; }
  // One for each backend of config(), also for those that get no new work.
  const std::vector<std::shared_ptr<BackendRuntime>>& runtimes() const { return runtimes_; }
  // Each server of each backend: the endpoints of a name, or the backend itself.
  struct Server {
    uint32_t index;  // index into Pool::backends
    std::string name;
    std::shared_ptr<BackendRuntime> runtime;
  };
  const std::vector<Server>& servers() const { return servers_; }

 private:
  enum class Strictness : uint8_t { healthy, not_tried, any };
  enum class Obstacle : uint8_t { none, unfit, breaker, full };
  struct Level {
    uint32_t first = 0, count = 0;   // range in members_
    uint64_t weight = 0;             // weight of its members
    uint64_t weight_configured = 0;  // weight with the members that get no new work
    // Views of the tables; see PoolLevel.
    std::span<const uint16_t> sequence, table;
    HashRing::View ring;
    std::shared_ptr<TurnCounter> turn;  // weighted_round_robin
  };
  // The ejected part of each level. It is computed again every kHealthAgeNs while any member may be ejected.
  struct Health {
    std::atomic<uint64_t> looked_ns{0};
    std::array<std::atomic<uint64_t>, kLevels> ejected_weight{};
  };
  static constexpr uint64_t kHealthAgeNs = 20'000'000;

  // Called for each member that a policy looks at. So the usual case is inline.
  Obstacle obstacle(const PoolMember& member, const Question& question, Strictness strictness) const {
    const BackendRuntime& its = *member.runtime;
    if (its.taken_down.load(std::memory_order_relaxed)) return Obstacle::unfit;
    if (strictness == Strictness::healthy && its.ejected(question.now_ns)) return Obstacle::unfit;
    if (strictness != Strictness::any && !question.tried.empty() && was_tried(its, question)) return Obstacle::unfit;
    if (member.breaker != nullptr && !member.breaker->would_grant(question.now_ns, config_->breaker)) {
      return Obstacle::breaker;
    }
    return question.connections != nullptr && !has_room(its, question) ? Obstacle::full : Obstacle::none;
  }
  bool acceptable(const PoolMember& member, const Question& question, Strictness strictness) const {
    return obstacle(member, question, strictness) == Obstacle::none;
  }
  static bool was_tried(const BackendRuntime& backend, const Question& question);
  bool has_room(const BackendRuntime& backend, const Question& question) const;
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
  const PoolMember* least_of_sample(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* of_two(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* by_table(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* by_ring(const Level& level, const Question& question, Strictness strictness) const;
  const PoolMember* first_acceptable(const Level& level, const Question& question, Strictness strictness) const;
  bool is_within_bound(const Level& level, const PoolMember& member, double total) const;
  uint64_t ejected_weight(size_t level, uint64_t now_ns) const;
  void look_at_health(uint64_t now_ns) const;
  void add_member(const PoolServer& server, const std::shared_ptr<BackendRuntime>& runtime);
  void take_level(size_t level, RuntimeRegistry& registry, std::span<const std::string> labels);

  const Pool* config_;
  uint64_t slow_start_ns_;
  std::shared_ptr<const PoolTables> tables_;
  std::shared_ptr<PoolRuntime> runtime_;
  std::vector<std::shared_ptr<BackendRuntime>> runtimes_;  // parallel to Pool::backends
  std::vector<Server> servers_;
  std::vector<PoolMember> members_;  // members that may get new work, by level
  std::array<Level, kLevels> levels_;
  std::array<double, kLevels> calm_shares_{};  // shares while nothing is ejected
  uint64_t weight_configured_ = 0;
  std::unique_ptr<Health> health_;
};

}  // namespace tidegate::l7
