// SPDX-License-Identifier: Apache-2.0
#include "l7/plan/pool_tables.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "conf/maglev.h"
#include "conf/model.h"
#include "conf/model/pool.h"

namespace tidegate::l7 {
namespace {

constexpr uint32_t kSmallTable = 2039,
                   kLargeTable = 65537;  // primes; NSDI'16 §5.3: with 100 slots per member, shares are exact within 1 %
constexpr size_t kSmallTableMembers = 20;

uint32_t level_of(const Pool& pool, const Backend& backend, uint32_t site) {
  if (backend.backup) return 2;
  return pool.prefer_site && site != kNone && backend.site != site ? 1 : 0;
}

bool has_labels(const Backend& backend, std::span<const std::string> labels) {
  return std::all_of(labels.begin(), labels.end(), [&](const std::string& wanted) {
    return std::find(backend.labels.begin(), backend.labels.end(), wanted) != backend.labels.end();
  });
}

// Of one pool, while they are made.
class Builder {
 public:
  Builder(const Snapshot& snapshot, uint32_t pool, const HashKey& key, const PoolShape& shape)
      : snapshot_(snapshot), pool_(pool), config_(snapshot.model->pools[pool]), key_(key), shape_(shape) {}

  PoolTables build() {
    for (uint32_t i = 0; i < config_.backends.size(); ++i) {
      const Backend& backend = config_.backends[i];
      if (has_labels(backend, shape_.labels)) add_backend(i, backend);
    }
    std::stable_sort(out_.members.begin(), out_.members.end(),
                     [&](uint32_t a, uint32_t b) { return out_.servers[a].level < out_.servers[b].level; });
    for (uint32_t level = 0; level < PoolTables::kLevels; ++level) build_level(level);
    return std::move(out_);
  }

 private:
  // Adds one server, or all servers that its name leads to.
  void add_backend(uint32_t index, const Backend& backend) {
    const bool usable = snapshot_.usable(pool_, index) && backend.weight > 0;
    PoolServer server{index, backend.weight, level_of(config_, backend, shape_.site), backend.name, {}};
    if (name_key(backend).empty()) {
      if (!backend.socket.empty()) server.addresses.push_back({{}, backend.socket});
      for (const IpAddress& address : backend.addresses) server.addresses.push_back({{address, backend.port}, {}});
      return add_server(std::move(server), usable);
    }
    const FoundName* const found = find_name(shape_.names, backend);
    if (found == nullptr || found->endpoints.empty()) return add_server(std::move(server), false);
    uint16_t first_priority = UINT16_MAX;
    for (const NamedEndpoint& each : found->endpoints) first_priority = std::min(first_priority, each.priority);
    for (const NamedEndpoint& each : found->endpoints) {
      PoolServer one = server;
      const uint16_t port = each.endpoint.port != 0 ? each.endpoint.port : backend.port;
      one.addresses.push_back({{each.endpoint.address, port}, {}});
      one.name = backend.name + "/" + one.addresses[0].to_string();
      one.weight = std::min<uint32_t>(UINT16_MAX, backend.weight * each.weight);
      // RFC 2782: servers of later priorities are used only if those of the first one are not available
      if (each.priority > first_priority) one.level = PoolTables::kLevels - 1;
      add_server(std::move(one), usable);
    }
  }

  void add_server(PoolServer&& server, bool usable) {
    out_.levels[server.level].weight_configured += server.weight;
    if (usable && !server.addresses.empty()) out_.members.push_back(static_cast<uint32_t>(out_.servers.size()));
    out_.servers.push_back(std::move(server));
  }

  void build_level(uint32_t l) {
    PoolLevel& level = out_.levels[l];
    const auto of_level = [&](uint32_t member) { return out_.servers[member].level == l; };
    const auto first = std::find_if(out_.members.begin(), out_.members.end(), of_level);
    level.first = static_cast<uint32_t>(first - out_.members.begin());
    level.count = static_cast<uint32_t>(std::count_if(first, out_.members.end(), of_level));
    std::vector<uint32_t> weights;
    std::vector<MaglevMember> slots;
    std::vector<RingMember> points;
    for (const uint32_t member : std::span(out_.members).subspan(level.first, level.count)) {
      const PoolServer& server = out_.servers[member];
      level.weight += server.weight;
      weights.push_back(server.weight);
      slots.push_back({server.name, server.weight, static_cast<uint16_t>(slots.size())});
      points.push_back({server.name, server.weight});
    }
    if (config_.policy == PoolPolicy::weighted_round_robin) level.sequence = spread_turns(weights);
    if (config_.policy == PoolPolicy::ring_hash) level.ring = HashRing(points, key_);
    if (config_.policy == PoolPolicy::consistent_hash && !slots.empty()) {
      level.table = build_maglev(slots, slots.size() <= kSmallTableMembers ? kSmallTable : kLargeTable, key_);
    }
  }

  const Snapshot& snapshot_;
  const uint32_t pool_;
  const Pool& config_;
  const HashKey& key_;
  const PoolShape& shape_;
  PoolTables out_;
};

}  // namespace

PoolTables make_tables(const Snapshot& snapshot, uint32_t pool, const HashKey& key, const PoolShape& shape) {
  return Builder(snapshot, pool, key, shape).build();
}

std::vector<uint16_t> spread_turns(std::span<const uint32_t> weights) {
  uint64_t sum = 0, divisor = 0;
  for (const uint32_t weight : weights) {
    sum += weight;
    divisor = std::gcd(divisor, uint64_t{weight});
  }
  if (sum == 0) return {};
  const double scale =
      std::min(1.0 / static_cast<double>(divisor), static_cast<double>(kMaxTurns) / static_cast<double>(sum));
  // Each member's k-th turn is due at (k + 1/2) / turns: sorting the due times interleaves all of them evenly.
  struct Turn {
    double due;
    uint16_t member;
  };
  std::vector<Turn> turns;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const auto count = std::max<uint64_t>(1, static_cast<uint64_t>(std::llround(weights[i] * scale)));
    for (uint64_t k = 0; k < count; ++k) {
      turns.push_back({(static_cast<double>(k) + 0.5) / static_cast<double>(count), static_cast<uint16_t>(i)});
    }
  }
  std::stable_sort(turns.begin(), turns.end(), [](const Turn& a, const Turn& b) { return a.due < b.due; });
  std::vector<uint16_t> sequence;
  sequence.reserve(turns.size());
  for (const Turn& turn : turns) sequence.push_back(turn.member);
  return sequence;
}

}  // namespace tidegate::l7
