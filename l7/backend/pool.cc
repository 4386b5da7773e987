// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/pool.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "conf/maglev.h"
#include "l7/backend/connections.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kScanAtMost = 32;  // least_requests looks at all of a pool up to this size
constexpr size_t kSample = 8;       // and at this many of a larger one
constexpr uint32_t kSmallTable = 2039,
                   kLargeTable = 65537;  // primes; NSDI'16 §5.3: 100 slots a member keep shares within 1 %
constexpr size_t kSmallTableMembers = 20;

}  // namespace

BackendPool::BackendPool(const Snapshot& snapshot, uint32_t pool, RuntimeRegistry& registry, const HashKey& key)
    : config_(&snapshot.model->pools[pool]), runtime_(registry.pool(config_->name)) {
  for (uint32_t i = 0; i < config_->backends.size(); ++i) {
    const Backend& backend = config_->backends[i];
    std::shared_ptr<BackendRuntime> runtime = registry.backend(config_->name, backend.name);
    runtimes_.push_back(runtime);
    if (!snapshot.usable(pool, i) || backend.weight == 0 || backend.addresses.empty()) continue;
    members_.push_back({i, backend.weight, &backend, std::move(runtime)});
    weight_sum_ += backend.weight;
  }
  if (config_->policy == PoolPolicy::weighted_round_robin) build_sequence();
  if (config_->policy == PoolPolicy::consistent_hash) build_table(key);
}

void BackendPool::build_sequence() {
  std::vector<uint32_t> weights;
  for (const PoolMember& member : members_) weights.push_back(member.weight);
  sequence_ = spread_turns(weights);
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

void BackendPool::build_table(const HashKey& key) {
  std::vector<MaglevMember> table_members;
  for (size_t i = 0; i < members_.size(); ++i) {
    table_members.push_back({members_[i].config->name, members_[i].weight, static_cast<uint16_t>(i)});
  }
  table_ = build_maglev(table_members, members_.size() <= kSmallTableMembers ? kSmallTable : kLargeTable, key);
}

bool BackendPool::acceptable(const PoolMember& member, const Question& question, Strictness strictness) const {
  if (member.runtime->taken_down.load(std::memory_order_relaxed)) return false;
  if (question.connections != nullptr && !question.connections->has_room(*member.runtime, config_->max_connections)) {
    return false;
  }
  if (strictness == Strictness::any) return true;
  if (std::find(question.tried.begin(), question.tried.end(), member.index) != question.tried.end()) return false;
  return strictness == Strictness::not_tried || !member.runtime->ejected(question.now_ns);
}

bool BackendPool::any_acceptable(const Question& question, Strictness strictness) const {
  return std::any_of(members_.begin(), members_.end(),
                     [&](const PoolMember& member) { return acceptable(member, question, strictness); });
}

BackendPool::Choice BackendPool::choose(const Question& question) const {
  for (const Strictness strictness : {Strictness::healthy, Strictness::not_tried, Strictness::any}) {
    // With all_down: closed, a pool whose every backend is ejected answers for itself.
    if (strictness == Strictness::not_tried && config_->all_down == AllDown::closed && question.tried.empty()) break;
    if (const PoolMember* member = choose_among(question, strictness)) return {member};
    if (question.connections == nullptr) continue;
    Question whatever_room = question;
    whatever_room.connections = nullptr;
    if (any_acceptable(whatever_room, strictness)) return {nullptr, true};
  }
  return {};
}

const PoolMember* BackendPool::choose_among(const Question& question, Strictness strictness) const {
  switch (config_->policy) {
    case PoolPolicy::weighted_round_robin:
      return by_turn(question, strictness);
    case PoolPolicy::least_requests:
      return by_least_requests(question, strictness);
    case PoolPolicy::consistent_hash:
      break;
  }
  return by_hash(question, strictness);
}

const PoolMember* BackendPool::by_turn(const Question& question, Strictness strictness) const {
  for (size_t i = 0; i < sequence_.size(); ++i) {
    // A retry takes no turn. Otherwise, with one of two backends dead, each request would meet the dead one first.
    const uint64_t turn =
        question.is_retry ? question.random + i : runtime_->turn.fetch_add(1, std::memory_order_relaxed);
    const PoolMember& member = members_[sequence_[turn % sequence_.size()]];
    if (acceptable(member, question, strictness)) return &member;
    // In an outage no turn leads to an acceptable backend. This is found out without taking all of them.
    if (i == 0 && !any_acceptable(question, strictness)) return nullptr;
  }
  return nullptr;
}

const PoolMember* BackendPool::by_least_requests(const Question& question, Strictness strictness) const {
  if (members_.empty()) return nullptr;
  const bool all = members_.size() <= kScanAtMost;
  const size_t looks = all ? members_.size() : kSample;
  const PoolMember* best = nullptr;
  double best_load = 0;
  for (size_t i = 0; i < looks; ++i) {
    // A random start breaks ties fairly; of a large pool each look is a draw of its own.
    const uint64_t draw = all ? question.random + i : mix64(question.random + i);
    const PoolMember& member = members_[draw % members_.size()];
    if (!acceptable(member, question, strictness)) continue;
    const double load = (member.runtime->in_flight.load(std::memory_order_relaxed) + 1.0) / member.weight;
    if (best == nullptr || load < best_load) {
      best = &member;
      best_load = load;
    }
  }
  if (best != nullptr || all) return best;
  for (const PoolMember& member : members_) {
    if (acceptable(member, question, strictness)) return &member;
  }
  return nullptr;
}

const PoolMember* BackendPool::by_hash(const Question& question, Strictness strictness) const {
  if (table_.empty()) return nullptr;
  const double total = runtime_->in_flight.load(std::memory_order_relaxed) + 1.0;
  uint64_t hash = question.hash;
  const PoolMember* first = nullptr;
  // Each refusal moves to a slot that depends on the hash alone, so that overflow of one key always goes the same way.
  for (size_t i = 0; i < 4 * members_.size() + 16; ++i, hash = mix64(hash + 0x9e3779b97f4a7c15ULL)) {
    const PoolMember& member = members_[table_[maglev_slot(hash, static_cast<uint32_t>(table_.size()))]];
    if (!acceptable(member, question, strictness)) continue;
    if (first == nullptr) first = &member;
    const double share = total * member.weight / static_cast<double>(weight_sum_);
    const double allowed = std::ceil(share * config_->load_bound);
    if (member.runtime->in_flight.load(std::memory_order_relaxed) + 1.0 <= allowed) return &member;
  }
  if (first != nullptr) return first;
  for (const PoolMember& member : members_) {
    if (acceptable(member, question, strictness)) return &member;
  }
  return nullptr;
}

const PoolMember* BackendPool::preferred(uint64_t hash) const {
  if (table_.empty() || members_.empty()) return nullptr;
  return &members_[table_[maglev_slot(hash, static_cast<uint32_t>(table_.size()))]];
}

}  // namespace tidegate::l7
