// SPDX-License-Identifier: Apache-2.0
// PoolTables: the servers of one pool as a Snapshot has them, in levels, and the tables by which the pool's policy
// picks one of a level. BackendPool (l7/backend/pool.h) says what levels and policies are, and joins the tables with
// runtime state.
//
// Immutable; any thread.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "conf/backend_names.h"
#include "conf/model/common.h"
#include "conf/snapshot.h"
#include "core/hash.h"
#include "l7/plan/backend_address.h"
#include "l7/plan/ring.h"

namespace tidegate::l7 {

// The selection of the pool's backends, and their order.
struct PoolShape {
  uint32_t site = kNone;                // the proxy's own site, for prefer_site
  std::span<const std::string> labels;  // only backends that have all of these labels
  const NameBook* names = nullptr;      // the servers that names of backends lead to
};

// One of the endpoints of a backend's name, or the backend itself.
struct PoolServer {
  uint32_t index = 0;  // index into Pool::backends
  uint32_t weight = 0;
  uint32_t level = 0;
  std::string name;
  std::vector<BackendAddress> addresses;  // all of one server; none: not known yet
};

struct PoolLevel {
  uint32_t first = 0, count = 0;   // range in PoolTables::members
  uint64_t weight = 0;             // weight of its members
  uint64_t weight_configured = 0;  // weight with the members that get no new work
  std::vector<uint16_t> sequence;  // weighted_round_robin: positions from `first`
  std::vector<uint16_t> table;     // consistent_hash: position from `first`, for each Maglev slot
  HashRing ring;                   // ring_hash: ring of positions from `first`
};

struct PoolTables {
  static constexpr size_t kLevels = 3;
  std::vector<PoolServer> servers;  // in the order of Pool::backends
  std::vector<uint32_t> members;    // those that may get new work, by level: indexes into `servers`
  std::array<PoolLevel, kLevels> levels;
};
PoolTables make_tables(const Snapshot& snapshot, uint32_t pool, const HashKey& key, const PoolShape& shape);

// The turns of a weighted round robin. Each member has weight/sum of the turns, spread as evenly as possible. There are
// at most kMaxTurns (larger weights are scaled down; none falls to zero).
constexpr size_t kMaxTurns = 4096;
std::vector<uint16_t> spread_turns(std::span<const uint32_t> weights);

}  // namespace tidegate::l7
