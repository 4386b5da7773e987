// SPDX-License-Identifier: Apache-2.0
// How a BackendPool is compiled, and how a level is chosen. The policies are in pool_policies.cc.
#include "l7/backend/pool.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "conf/maglev.h"
#include "core/clock.h"
#include "core/log.h"
#include "l7/backend/connections.h"

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

// Each level's share of the requests, from the healthy part of its weight. A level gets what those before it leave. If
// all together are not enough, each gets more in proportion.
std::array<double, BackendPool::kLevels> shares_of(const std::array<double, BackendPool::kLevels>& healthy,
                                                   double spare_capacity) {
  std::array<double, BackendPool::kLevels> shares{};
  double left = 1;
  for (size_t l = 0; l < shares.size(); ++l) {
    shares[l] = std::min(left, healthy[l] * spare_capacity);
    left -= shares[l];
  }
  const double given = 1 - left;
  if (given > 0 && left > 0) {
    for (double& share : shares) share /= given;
  }
  return shares;
}

}  // namespace

BackendPool::BackendPool(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const HashKey& key,
                         const Shape& shape)
    : config_(&snapshot.model->pools[pool]),
      slow_start_ns_(config_->slow_start_ms * kNsPerMs),
      runtime_(registry.pool(config_->name)),
      health_(std::make_unique<Health>()) {
  add_members(snapshot, pool, registry, shape);
  for (size_t level = 0; level < kLevels; ++level) build_level(level, registry, key, shape);
  calm_shares_ = shares(UINT64_MAX);
}

void BackendPool::add_members(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const Shape& shape) {
  for (uint32_t i = 0; i < config_->backends.size(); ++i) {
    const Backend& backend = config_->backends[i];
    PoolMember member;
    member.index = i;
    member.weight = backend.weight;
    member.level = level_of(*config_, backend, shape.site);
    member.config = &backend;
    member.runtime = registry.backend(config_->name, backend.name);
    member.name = backend.name;
    runtimes_.push_back(member.runtime);
    if (!has_labels(backend, shape.labels)) continue;
    add_backend(member, snapshot.usable(pool, i) && backend.weight > 0, registry, shape);
  }
  std::stable_sort(members_.begin(), members_.end(),
                   [](const PoolMember& a, const PoolMember& b) { return a.level < b.level; });
}

// Adds one server, or all servers that its name leads to.
void BackendPool::add_backend(const PoolMember& common, bool usable, RuntimeRegistry& registry, const Shape& shape) {
  const Backend& backend = *common.config;
  const std::string key = name_key(backend);
  PoolMember member = common;
  if (key.empty()) {
    if (!backend.socket.empty()) member.addresses.push_back({{}, backend.socket});
    for (const IpAddress& address : backend.addresses) member.addresses.push_back({{address, backend.port}, {}});
    return add_server(std::move(member), usable);
  }
  const FoundName* const found = find_name(shape.names, backend);
  if (found == nullptr || found->endpoints.empty()) return add_server(std::move(member), false);
  uint16_t first_priority = UINT16_MAX;
  for (const NamedEndpoint& each : found->endpoints) first_priority = std::min(first_priority, each.priority);
  for (const NamedEndpoint& each : found->endpoints) {
    member = common;
    const uint16_t port = each.endpoint.port != 0 ? each.endpoint.port : backend.port;
    member.addresses.push_back({{each.endpoint.address, port}, {}});
    member.name = backend.name + "/" + member.addresses[0].to_string();
    member.weight = std::min<uint32_t>(UINT16_MAX, backend.weight * each.weight);
    if (each.priority > first_priority) member.level = kLevels - 1;  // RFC 2782: they serve if the others do not
    member.runtime = registry.backend(config_->name, member.name);
    add_server(std::move(member), usable);
  }
}

void BackendPool::add_server(PoolMember&& member, bool usable) {
  levels_[member.level].weight_configured += member.weight;
  servers_.push_back({member.index, member.name, member.runtime});
  if (!usable || member.addresses.empty()) return;
  if (config_->breaker.enabled) {
    member.breaker = config_->breaker.scope == BreakerScope::pool ? &runtime_->breaker : &member.runtime->breaker;
  }
  members_.push_back(std::move(member));
}

void BackendPool::build_level(size_t l, RuntimeRegistry& registry, const HashKey& key, const Shape& shape) {
  Level& level = levels_[l];
  weight_configured_ += level.weight_configured;
  const auto of_level = [l](const PoolMember& member) { return member.level == l; };
  const auto first = std::find_if(members_.begin(), members_.end(), of_level);
  level.first = static_cast<uint32_t>(first - members_.begin());
  level.count = static_cast<uint32_t>(std::count_if(first, members_.end(), of_level));
  std::vector<uint32_t> weights;
  std::vector<MaglevMember> slots;
  std::vector<RingMember> points;
  for (const PoolMember& member : members_of(level)) {
    level.weight += member.weight;
    weights.push_back(member.weight);
    slots.push_back({member.name, member.weight, static_cast<uint16_t>(slots.size())});
    points.push_back({member.name, member.weight});
  }
  if (config_->policy == PoolPolicy::weighted_round_robin) level.sequence = spread_turns(weights);
  if (config_->policy == PoolPolicy::ring_hash) level.ring = HashRing(points, key);
  if (config_->policy == PoolPolicy::consistent_hash && !slots.empty()) {
    level.table = build_maglev(slots, slots.size() <= kSmallTableMembers ? kSmallTable : kLargeTable, key);
  }
  if (l == 0 && shape.labels.empty()) {
    level.turn = std::shared_ptr<TurnCounter>(runtime_, &runtime_->turn);
    return;
  }
  std::string part = std::to_string(l);
  for (const std::string& label : shape.labels) part += "/" + label;
  level.turn = registry.turns(config_->name, part);
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

BackendPool::Obstacle BackendPool::obstacle(const PoolMember& member, const Question& question,
                                            Strictness strictness) const {
  if (member.runtime->taken_down.load(std::memory_order_relaxed)) return Obstacle::unfit;
  if (strictness != Strictness::any) {
    const bool tried =
        std::find(question.tried.begin(), question.tried.end(), member.runtime->id) != question.tried.end();
    if (tried || (strictness == Strictness::healthy && member.runtime->ejected(question.now_ns))) {
      return Obstacle::unfit;
    }
  }
  if (member.breaker != nullptr && !member.breaker->would_grant(question.now_ns, config_->breaker)) {
    return Obstacle::breaker;
  }
  if (question.connections != nullptr &&
      !question.connections->has_room(*member.runtime, config_->max_connections, question.past_accepted)) {
    return Obstacle::full;
  }
  return Obstacle::none;
}

bool BackendPool::any_acceptable(const Level& level, const Question& question, Strictness strictness) const {
  const std::span<const PoolMember> members = members_of(level);
  return std::any_of(members.begin(), members.end(),
                     [&](const PoolMember& member) { return acceptable(member, question, strictness); });
}

bool BackendPool::others_are_left(const PoolMember* present, const Question& question) const {
  return std::any_of(members_.begin(), members_.end(), [&](const PoolMember& member) {
    const Obstacle why = obstacle(member, question, Strictness::not_tried);
    return &member != present && (why == Obstacle::none || why == Obstacle::full);
  });
}

BackendPool::Choice BackendPool::choose(const Question& question) const {
  Choice none;
  const bool panic = config_->panic_threshold > 0 && in_panic(question.now_ns);
  for (const Strictness strictness : {Strictness::healthy, Strictness::not_tried, Strictness::any}) {
    if (strictness == Strictness::healthy && panic) continue;
    // With all_down: closed, a pool refuses requests if every backend is ejected.
    if (strictness == Strictness::not_tried && config_->all_down == AllDown::closed && question.tried.empty() &&
        !panic) {
      break;
    }
    if (const PoolMember* member = choose_among_levels(question, strictness)) return {member};
    for (const PoolMember& member : members_) {
      const Obstacle why = obstacle(member, question, strictness);
      none.broken |= why == Obstacle::breaker;
      if (why == Obstacle::full) return {nullptr, true};
    }
  }
  return none;
}

const PoolMember* BackendPool::choose_among_levels(const Question& question, Strictness strictness) const {
  if (levels_[0].count == members_.size()) return choose_among(levels_[0], question, strictness);
  const size_t drawn = draw_level(question);
  if (const PoolMember* member = choose_among(levels_[drawn], question, strictness)) return member;
  for (size_t l = 0; l < kLevels; ++l) {
    if (l == drawn) continue;
    if (const PoolMember* member = choose_among(levels_[l], question, strictness)) return member;
  }
  return nullptr;
}

// By the shares. The same hash always draws the same number, so a key keeps its level while the shares stay the same.
size_t BackendPool::draw_level(const Question& question) const {
  const bool calm = runtime_->disturbed_until_ns.load(std::memory_order_relaxed) <= question.now_ns;
  const std::array<double, kLevels> parts = calm ? calm_shares_ : shares(question.now_ns);
  const bool hashed = config_->policy == PoolPolicy::consistent_hash || config_->policy == PoolPolicy::ring_hash;
  const uint64_t draw = mix64((hashed ? question.hash : question.random) ^ 0x6c6576656cULL);
  double left = static_cast<double>(draw >> 11) * 0x1.0p-53;
  size_t last = 0;
  for (size_t l = 0; l < kLevels; ++l) {
    if (parts[l] <= 0) continue;
    last = l;
    if (left < parts[l]) break;
    left -= parts[l];
  }
  return last;
}

std::array<double, BackendPool::kLevels> BackendPool::shares(uint64_t now_ns) const {
  std::array<double, kLevels> healthy{};
  for (size_t l = 0; l < kLevels; ++l) {
    if (levels_[l].weight_configured == 0) continue;
    const uint64_t ejected = std::min(levels_[l].weight, ejected_weight(l, now_ns));
    healthy[l] = static_cast<double>(levels_[l].weight - ejected) / static_cast<double>(levels_[l].weight_configured);
  }
  return shares_of(healthy, config_->spare_capacity);
}

bool BackendPool::in_panic(uint64_t now_ns) const {
  if (config_->panic_threshold <= 0 || weight_configured_ == 0) return false;
  uint64_t healthy = 0;
  for (size_t l = 0; l < kLevels; ++l) {
    healthy += levels_[l].weight - std::min(levels_[l].weight, ejected_weight(l, now_ns));
  }
  return static_cast<double>(healthy) < config_->panic_threshold * static_cast<double>(weight_configured_);
}

uint64_t BackendPool::ejected_weight(size_t level, uint64_t now_ns) const {
  if (runtime_->disturbed_until_ns.load(std::memory_order_relaxed) <= now_ns) return 0;
  const uint64_t looked_ns = health_->looked_ns.load(std::memory_order_relaxed);
  if (looked_ns == 0 || now_ns - looked_ns > kHealthAgeNs) look_at_health(now_ns);
  return health_->ejected_weight[level].load(std::memory_order_relaxed);
}

void BackendPool::look_at_health(uint64_t now_ns) const {
  health_->looked_ns.store(now_ns, std::memory_order_relaxed);
  std::array<uint64_t, kLevels> ejected{};
  for (const PoolMember& member : members_) {
    if (member.runtime->ejected(now_ns)) ejected[member.level] += member.weight;
  }
  for (size_t l = 0; l < kLevels; ++l) health_->ejected_weight[l].store(ejected[l], std::memory_order_relaxed);
}

bool BackendPool::note_failure(const PoolMember& member, uint64_t now_ns) const {
  if (!member.runtime->note_failure(now_ns, config_->eject_after)) return false;
  const MutexLock lock(runtime_->ejecting);
  const auto ejected = static_cast<size_t>(std::count_if(
      members_.begin(), members_.end(), [&](const PoolMember& each) { return each.runtime->ejected(now_ns); }));
  const auto most =
      static_cast<size_t>(std::floor(config_->eject_max_share * static_cast<double>(members_.size()) + 1e-9));
  if (ejected >= std::max<size_t>(1, most)) return false;
  const uint64_t eject_ns = config_->eject_ms * kNsPerMs;
  if (!member.runtime->eject(now_ns, eject_ns)) return false;
  const uint64_t until = runtime_->disturbed_until_ns.load(std::memory_order_relaxed);
  runtime_->disturbed_until_ns.store(std::max(until, now_ns + eject_ns), std::memory_order_relaxed);
  health_->looked_ns.store(0, std::memory_order_relaxed);
  return true;
}

void BackendPool::note_not_accepted(const PoolMember& member, BackendConnections& connections, uint32_t ordinal) const {
  member.runtime->not_accepted.fetch_add(1, std::memory_order_relaxed);
  if (!connections.note_not_accepted(*member.runtime, ordinal)) return;
  log_warn("pool {}: {} does not accept connections as fast as they come: a worker opens {} at the most for now",
           config_->name, member.name, connections.most_accepted(*member.runtime));
}

void BackendPool::settle_breaker(const PoolMember& member, Breaker::Permit& permit, Breaker::Result result,
                                 uint64_t now_ns) const {
  if (member.breaker == nullptr || !permit.granted) return;
  const Breaker::Permit spent = std::exchange(permit, {});
  const PoolBreaker& breaker = config_->breaker;
  const std::string_view whose =
      breaker.scope == BreakerScope::pool ? std::string_view("the pool") : std::string_view(member.name);
  switch (member.breaker->settle(spent, result, now_ns, breaker)) {
    case Breaker::Change::none:
      return;
    case Breaker::Change::opened:
      runtime_->breaker_opened.fetch_add(1, std::memory_order_relaxed);
      return log_warn("pool {}: the breaker of {} opens for {} ms", config_->name, whose, breaker.open_ms);
    case Breaker::Change::closed:
      runtime_->breaker_closed.fetch_add(1, std::memory_order_relaxed);
      return log_info("pool {}: the breaker of {} closes: its trials went well", config_->name, whose);
  }
}

void BackendPool::enter_service(uint64_t now_ns, bool at_start) const {
  using Service = BackendRuntime::Service;
  for (const Server& server : servers_) {
    if (server.runtime->service == Service::in) server.runtime->service = Service::was_in;
  }
  for (const PoolMember& member : members_) {
    if (member.runtime->service != Service::was_in && !at_start) {
      member.runtime->in_service_since_ns.store(now_ns, std::memory_order_relaxed);
    }
    member.runtime->service = Service::in;
  }
  for (const Server& server : servers_) {
    if (server.runtime->service == Service::was_in) server.runtime->service = Service::out;
  }
}

}  // namespace tidegate::l7
