// SPDX-License-Identifier: Apache-2.0
// How a BackendPool chooses among the members of one level, by the pool's policy.
#include <algorithm>
#include <array>
#include <cmath>

#include "conf/maglev.h"
#include "conf/model/pool.h"
#include "l7/backend/pool.h"

namespace tidegate::l7 {
namespace {

constexpr size_t kScanAtMost = 32;  // least_requests examines all members of a level up to this size
constexpr size_t kSample = 8;       // and this many of a larger level
constexpr size_t kDraws = 4;        // draws of random_of_two and peak_ewma, until two members may be used
constexpr uint64_t kGolden = 0x9e3779b97f4a7c15ULL;

__extension__ using Uint128 = unsigned __int128;

// One of `count` by random bits, without a division.
size_t drawn_of(size_t count, uint64_t random) {
  return static_cast<size_t>(static_cast<Uint128>(random) * count >> 64);
}

}  // namespace

const PoolMember* BackendPool::choose_among(const Level& level, const Question& question, Strictness strictness) const {
  if (level.count == 0) return nullptr;
  switch (config_->policy) {
    case PoolPolicy::weighted_round_robin:
      return by_turn(level, question, strictness);
    case PoolPolicy::least_requests:
      return by_least_requests(level, question, strictness);
    case PoolPolicy::random_of_two:
    case PoolPolicy::peak_ewma:
      return of_two(level, question, strictness);
    case PoolPolicy::ring_hash:
      return by_ring(level, question, strictness);
    case PoolPolicy::consistent_hash:
      break;
  }
  return by_table(level, question, strictness);
}

// Draws whether a member that starts slowly takes this request.
bool BackendPool::starts_fast_enough(const PoolMember& member, uint64_t random, uint64_t now_ns) const {
  if (slow_start_ns_ == 0) return true;
  const double share = member.runtime->share_of_weight(now_ns, slow_start_ns_);
  return share >= 1 ||
         static_cast<double>(mix64(random + (member.runtime->id + 1) * kGolden) >> 11) * 0x1.0p-53 < share;
}

double BackendPool::load_of(const PoolMember& member, uint64_t now_ns) const {
  double load = (member.runtime->in_flight.load(std::memory_order_relaxed) + 1.0) / member.weight;
  if (config_->policy == PoolPolicy::peak_ewma) load *= 1 + member.runtime->latency.value_us(now_ns);
  return slow_start_ns_ == 0 ? load : load / member.runtime->share_of_weight(now_ns, slow_start_ns_);
}

const PoolMember* BackendPool::first_acceptable(const Level& level, const Question& question,
                                                Strictness strictness) const {
  const std::span<const PoolMember> members = members_of(level);
  for (size_t i = 0; i < members.size(); ++i) {
    const PoolMember& member = members[(question.random + i) % members.size()];
    if (acceptable(member, question, strictness)) return &member;
  }
  return nullptr;
}

const PoolMember* BackendPool::by_turn(const Level& level, const Question& question, Strictness strictness) const {
  const PoolMember* slow = nullptr;  // the first member that was skipped because it starts slowly
  for (size_t i = 0; i < level.sequence.size(); ++i) {
    // A retry takes no turn. Otherwise, if one of two backends is dead, each request would try the dead one first.
    const uint64_t turn = question.is_retry ? question.random + i : level.turn->fetch_add(1, std::memory_order_relaxed);
    const PoolMember& member = members_[level.first + level.sequence[turn % level.sequence.size()]];
    if (acceptable(member, question, strictness)) {
      if (starts_fast_enough(member, question.random + i, question.now_ns)) return &member;
      if (slow == nullptr) slow = &member;
    }
    // In an outage no turn leads to an acceptable backend. This check finds it out without taking all turns.
    if (i == 0 && slow == nullptr && !any_acceptable(level, question, strictness)) return nullptr;
    if (slow != nullptr && i >= 2 * level.count) break;  // perhaps all of them start slowly
  }
  return slow;
}

// Of a few members, all of them. A random start breaks ties fairly.
const PoolMember* BackendPool::by_least_requests(const Level& level, const Question& question,
                                                 Strictness strictness) const {
  const std::span<const PoolMember> members = members_of(level);
  if (members.size() > kScanAtMost) return least_of_sample(level, question, strictness);
  const size_t start = drawn_of(members.size(), mix64(question.random));
  const PoolMember* best = nullptr;
  double best_load = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    const PoolMember& member = members[start + i < members.size() ? start + i : start + i - members.size()];
    if (!acceptable(member, question, strictness)) continue;
    const double load = load_of(member, question.now_ns);
    if (best == nullptr || load < best_load) {
      best = &member;
      best_load = load;
    }
  }
  return best;
}

// The memory of all drawn members is prefetched before the first member is read. So the cache misses overlap.
const PoolMember* BackendPool::least_of_sample(const Level& level, const Question& question,
                                               Strictness strictness) const {
  const std::span<const PoolMember> members = members_of(level);
  std::array<const PoolMember*, kSample> sample;
  for (size_t i = 0; i < kSample; ++i) {
    sample[i] = &members[drawn_of(members.size(), mix64(question.random + i))];
    __builtin_prefetch(sample[i]);
  }
  for (const PoolMember* const member : sample) __builtin_prefetch(member->runtime.get());
  const PoolMember* best = nullptr;
  double best_load = 0;
  for (const PoolMember* const member : sample) {
    if (!acceptable(*member, question, strictness)) continue;
    const double load = load_of(*member, question.now_ns);
    if (best != nullptr && load >= best_load) continue;
    best = member;
    best_load = load;
  }
  return best != nullptr ? best : first_acceptable(level, question, strictness);
}

const PoolMember* BackendPool::of_two(const Level& level, const Question& question, Strictness strictness) const {
  const std::span<const PoolMember> members = members_of(level);
  const PoolMember* first = nullptr;
  for (size_t i = 0; i < kDraws; ++i) {
    const PoolMember* member = &members[drawn_of(members.size(), mix64(question.random + i * kGolden))];
    // Two different ones: if the second draw gives the same member, takes its neighbour.
    if (member == first) member = &members[(static_cast<size_t>(member - members.data()) + 1) % members.size()];
    if (member == first || !acceptable(*member, question, strictness)) continue;
    if (first == nullptr) {
      first = member;
      continue;
    }
    return load_of(*member, question.now_ns) < load_of(*first, question.now_ns) ? member : first;
  }
  return first != nullptr ? first : first_acceptable(level, question, strictness);
}

bool BackendPool::is_within_bound(const Level& level, const PoolMember& member, double total) const {
  const double share = total * member.weight / static_cast<double>(level.weight);
  return member.runtime->in_flight.load(std::memory_order_relaxed) + 1.0 <= std::ceil(share * config_->load_bound);
}

const PoolMember* BackendPool::by_table(const Level& level, const Question& question, Strictness strictness) const {
  if (level.table.empty()) return nullptr;
  const double total = runtime_->in_flight.load(std::memory_order_relaxed) + 1.0;
  uint64_t hash = question.hash;
  const PoolMember* first = nullptr;
  // Each refusal moves to a slot that depends only on the hash, so the overflow of one key always goes the same way.
  for (size_t i = 0; i < 4 * level.count + 16; ++i, hash = mix64(hash + kGolden)) {
    const size_t slot = maglev_slot(hash, static_cast<uint32_t>(level.table.size()));
    const PoolMember& member = members_[level.first + level.table[slot]];
    if (!acceptable(member, question, strictness)) continue;
    if (first == nullptr) first = &member;
    if (!starts_fast_enough(member, question.hash, question.now_ns)) continue;
    if (is_within_bound(level, member, total)) return &member;
  }
  return first != nullptr ? first : first_acceptable(level, question, strictness);
}

// If a backend cannot take the request, the next point of the ring is tried.
const PoolMember* BackendPool::by_ring(const Level& level, const Question& question, Strictness strictness) const {
  if (level.ring.empty()) return nullptr;
  const double total = runtime_->in_flight.load(std::memory_order_relaxed) + 1.0;
  const size_t start = level.ring.position_of(question.hash);
  const PoolMember* first = nullptr;
  for (size_t i = 0; i < std::min<size_t>(level.ring.size(), 4 * level.count + 16); ++i) {
    const PoolMember& member = members_[level.first + level.ring.member_at(start + i)];
    if (!acceptable(member, question, strictness)) continue;
    if (first == nullptr) first = &member;
    if (!starts_fast_enough(member, question.hash, question.now_ns)) continue;
    if (is_within_bound(level, member, total)) return &member;
  }
  return first != nullptr ? first : first_acceptable(level, question, strictness);
}

const PoolMember* BackendPool::preferred(uint64_t hash) const {
  const size_t l = members_.empty() ? 0 : draw_level({.hash = hash, .now_ns = UINT64_MAX});
  const Level& level = levels_[l];
  if (!level.table.empty()) {
    return &members_[level.first + level.table[maglev_slot(hash, static_cast<uint32_t>(level.table.size()))]];
  }
  if (!level.ring.empty()) return &members_[level.first + level.ring.member_at(level.ring.position_of(hash))];
  return nullptr;
}

}  // namespace tidegate::l7
