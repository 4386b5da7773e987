// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/explain_pool.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/route.h"
#include "core/clock.h"
#include "l7/exchange/sticky.h"

namespace tidegate::l7 {
namespace {

// One backend of the pool, as it is now.
nlohmann::json explain_backend(const BackendPool& pool, const BackendStatus& status, uint32_t i, bool usable,
                               uint64_t now_ns) {
  const Pool& config = pool.config();
  const Backend& backend = config.backends[i];
  const BackendRuntime& runtime = *pool.runtimes()[i];
  nlohmann::json entry{{"backend", backend.name},
                       {"weight", backend.weight},
                       {"state", name(status.state)},
                       {"why", status.why},
                       {"in_flight", runtime.in_flight.load(std::memory_order_relaxed)},
                       {"takes_new_work", usable},
                       {"running_work", status.taken_down ? "ends" : "goes on"}};
  if (usable && runtime.ejected(now_ns)) entry["why"] = "ejected after consecutive failures";
  if (const uint64_t count = runtime.not_accepted.load(std::memory_order_relaxed); count > 0) {
    entry["connections_not_accepted"] = count;
  }
  if (!backend.socket.empty()) entry["socket"] = backend.socket;
  if (backend.backup) entry["backup"] = true;
  if (!backend.labels.empty()) entry["labels"] = backend.labels;
  if (const double share = runtime.share_of_weight(now_ns, config.slow_start_ms * kNsPerMs); share < 1) {
    entry["slow_start"] = share;
  }
  if (config.policy == PoolPolicy::peak_ewma) entry["answer_time_us"] = runtime.latency.value_us(now_ns);
  if (config.breaker.enabled && config.breaker.scope == BreakerScope::backend) {
    entry["breaker"] = name(runtime.breaker.state(now_ns));
  }
  return entry;
}

void add_lookup(const std::string& key, const FoundName* found, nlohmann::json& entry) {
  entry["name"] = key;
  entry["lookup"] = found == nullptr ? "not looked up yet" : found->trouble.empty() ? "found" : found->trouble.c_str();
}

// For a server that control found: the name that led to it.
void explain_found(const Snapshot& snapshot, uint32_t pool, const Backend& server, nlohmann::json& entry) {
  for (const Backend& named : snapshot.configured->pools[pool].backends) {
    if (named.name != server.found_by) continue;
    add_lookup(name_key(named), find_name(&snapshot.live_state->names, named), entry);
    entry["found_by"] = named.name;
  }
}

// Adds the servers that were found by the name of a backend, with their state.
void explain_name(const BackendPool& pool, const NameBook* names, uint32_t i, uint64_t now_ns, nlohmann::json& entry) {
  const std::string key = name_key(pool.config().backends[i]);
  if (key.empty()) return;
  const FoundName* const found = find_name(names, pool.config().backends[i]);
  add_lookup(key, found, entry);
  entry["servers"] = nlohmann::json::array();
  for (const BackendPool::Server& server : pool.servers()) {
    if (server.index != i || server.runtime == pool.runtimes()[i]) continue;
    entry["servers"].push_back({{"backend", server.name},
                                {"in_flight", server.runtime->in_flight.load(std::memory_order_relaxed)},
                                {"ejected", server.runtime->ejected(now_ns)}});
  }
}

// With several levels: which part of the requests each of them gets now.
void explain_levels(const BackendPool& pool, uint64_t now_ns, nlohmann::json& answer) {
  constexpr const char* kNames[] = {"own", "other_sites", "backup"};
  const auto& members = pool.members();
  if (std::all_of(members.begin(), members.end(), [](const PoolMember& member) { return member.level == 0; })) return;
  const std::array<double, BackendPool::kLevels> shares = pool.shares(now_ns);
  for (size_t l = 0; l < shares.size(); ++l) answer["levels"][kNames[l]] = shares[l];
}

}  // namespace

const BackendPool& pool_for_route(const Plan& plan, uint32_t route, uint32_t split_pool) {
  if (split_pool != kNone) return *plan.pools[split_pool];
  const BackendPool& pool = plan.pool_of(route);
  const Route& config = plan.model().routes[route];
  return pool.members().empty() && !config.labels_required ? *plan.pools[config.pool()] : pool;
}

void explain_pool(const Plan& plan, uint32_t route, const RequestHead& request, std::string_view client,
                  uint32_t split_pool, nlohmann::json& answer) {
  const uint32_t pool_index = split_pool == kNone ? plan.model().routes[route].pool() : split_pool;
  const BackendPool& pool = pool_for_route(plan, route, split_pool);
  const Pool& config = pool.config();
  const PoolStatus& status = plan.snapshot->pools[pool_index];
  answer["pool"] = config.name;
  answer["policy"] = policy_words(config.policy).name;
  answer["protocol"] = config.protocol == BackendProtocol::h1   ? "h1"
                       : config.protocol == BackendProtocol::h2 ? "h2"
                                                                : "auto";
  answer["upgrades"] = config.upgrades;
  answer["upgrades"].push_back("websocket");
  const uint64_t now_ns = monotonic_ns();
  const std::vector<PoolMember>& members = pool.members();
  for (uint32_t i = 0; i < config.backends.size(); ++i) {
    answer["eligible"].push_back(
        explain_backend(pool, status.backends[i], i, plan.snapshot->usable(pool_index, i), now_ns));
    explain_name(pool, plan.names.get(), i, now_ns, answer["eligible"].back());
    if (!config.backends[i].found_by.empty()) {
      explain_found(*plan.snapshot, pool_index, config.backends[i], answer["eligible"].back());
    }
  }
  if (!plan.model().routes[route].labels.empty()) answer["labels"] = plan.model().routes[route].labels;
  const bool hashed = config.policy == PoolPolicy::consistent_hash || config.policy == PoolPolicy::ring_hash;
  if (members.empty()) {
    answer["reason"] = "no backend of the pool may take new work: 503";
  } else if (hashed) {
    const PoolMember* preferred = pool.preferred(hash_for_pool(plan, config, request, client));
    answer["backend"] = preferred->name;
    answer["reason"] = fmt::format("the hash of its {} picks {} while that is within its bound of load", config.hash_on,
                                   preferred->name);
  } else if (members.size() == 1) {
    answer["backend"] = members[0].name;
    answer["reason"] = "the only backend that takes new work";
  } else {
    answer["reason"] = policy_words(config.policy).reason;
  }
  if (config.breaker.enabled && config.breaker.scope == BreakerScope::pool) {
    const Breaker::State state = pool.runtime().breaker.state(now_ns);
    answer["breaker"] = name(state);
    if (state == Breaker::State::open) answer["reason"] = "the breaker of the pool is open: 503";
  }
  if (config.sticky.by != StickyBy::none) {
    if (const PoolMember* const wanted =
            sticky_member(plan.hash_key, pool, token_of_request(config.sticky, request), realtime_ns() / kNsPerS)) {
      answer["backend"] = wanted->name;
      answer["reason"] = fmt::format("the client's token names {}, while that may be used", wanted->name);
    }
    answer["sticky"] = fmt::format("{} {}: a client with its token stays on its backend",
                                   config.sticky.by == StickyBy::cookie ? "cookie" : "field", config.sticky.name);
  }
  explain_levels(pool, now_ns, answer);
  if (status.fail_open) answer["fail_open"] = true;
  if (pool.in_panic(now_ns)) answer["panic"] = true;
  const QueuePriority priority = plan.model().routes[route].queue_priority;
  answer["queue"] = {{"priority", priority == QueuePriority::low    ? "low"
                                  : priority == QueuePriority::high ? "high"
                                                                    : "normal"},
                     {"waiting", pool.runtime().waiting.load(std::memory_order_relaxed)},
                     {"size", config.queue_size},
                     {"timeout_ms", config.queue_timeout_ms}};
}

PolicyWords policy_words(PoolPolicy policy) {
  switch (policy) {
    case PoolPolicy::weighted_round_robin:
      return {"weighted_round_robin", "the next in turn of those that take new work, as often as their weights say"};
    case PoolPolicy::least_requests:
      return {"least_requests", "the one with the fewest requests under way for its weight, at that moment"};
    case PoolPolicy::random_of_two:
      return {"random_of_two", "of two random ones, the one with fewer requests under way for its weight"};
    case PoolPolicy::peak_ewma:
      return {"peak_ewma",
              "of two random ones, the one with the smaller product of answer time and requests under way"};
    case PoolPolicy::ring_hash:
      return {"ring_hash", ""};
    case PoolPolicy::consistent_hash:
      break;
  }
  return {"consistent_hash", ""};
}

}  // namespace tidegate::l7
