// SPDX-License-Identifier: Apache-2.0
// How a BackendPool is made of its tables, and how a level is chosen. The policies are in pool_policies.cc.
#include "l7/backend/pool.h"

#include <algorithm>
#include <cmath>

#include "conf/model.h"
#include "conf/model/service.h"
#include "core/clock.h"
#include "core/log.h"
#include "l7/backend/connections.h"

namespace tidegate::l7 {
namespace {

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

BackendPool::BackendPool(const Snapshot& snapshot, uint32_t pool, std::shared_ptr<const PoolTables> tables,
                         RuntimeRegistry& registry, std::span<const std::string> labels)
    : config_(&snapshot.model->pools[pool]),
      slow_start_ns_(config_->slow_start_ms * kNsPerMs),
      tables_(std::move(tables)),
      runtime_(registry.pool(config_->name)),
      health_(std::make_unique<Health>()) {
  for (const Backend& backend : config_->backends) runtimes_.push_back(registry.backend(config_->name, backend.name));
  for (const PoolServer& server : tables_->servers) {
    const bool is_itself = server.name == config_->backends[server.index].name;
    servers_.push_back({server.index, server.name,
                        is_itself ? runtimes_[server.index] : registry.backend(config_->name, server.name)});
  }
  members_.reserve(tables_->members.size());
  for (const uint32_t index : tables_->members) add_member(tables_->servers[index], servers_[index].runtime);
  for (size_t level = 0; level < kLevels; ++level) take_level(level, registry, labels);
  calm_shares_ = shares(UINT64_MAX);
}

void BackendPool::add_member(const PoolServer& server, const std::shared_ptr<BackendRuntime>& runtime) {
  PoolMember& member = members_.emplace_back();
  member.index = server.index;
  member.weight = server.weight;
  member.level = server.level;
  member.config = &config_->backends[server.index];
  member.runtime = runtime;
  member.name = server.name;
  member.addresses = server.addresses;
  if (config_->breaker.enabled) {
    member.breaker = config_->breaker.scope == BreakerScope::pool ? &runtime_->breaker : &runtime->breaker;
  }
}

void BackendPool::take_level(size_t l, RuntimeRegistry& registry, std::span<const std::string> labels) {
  const PoolLevel& described = tables_->levels[l];
  Level& level = levels_[l];
  level.first = described.first;
  level.count = described.count;
  level.weight = described.weight;
  level.weight_configured = described.weight_configured;
  level.sequence = described.sequence;
  level.table = described.table;
  level.ring = described.ring;
  weight_configured_ += level.weight_configured;
  if (l == 0 && labels.empty()) {
    level.turn = std::shared_ptr<TurnCounter>(runtime_, &runtime_->turn);
    return;
  }
  std::string part = std::to_string(l);
  for (const std::string& label : labels) part += "/" + label;
  level.turn = registry.turns(config_->name, part);
}

bool BackendPool::was_tried(const BackendRuntime& backend, const Question& question) {
  return std::find(question.tried.begin(), question.tried.end(), backend.id) != question.tried.end();
}

bool BackendPool::has_room(const BackendRuntime& backend, const Question& question) const {
  return question.connections->has_room(backend, config_->max_connections, question.past_accepted);
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
