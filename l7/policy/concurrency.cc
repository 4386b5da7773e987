// SPDX-License-Identifier: Apache-2.0
// The concurrency policy (conf/policy/concurrency.h). On the request: one is added to the count of its key, or it is
// refused (503, Retry-After), at once or after a wait (`wait`). At the end of the exchange the count is reduced, and
// the request that has waited longest gets the place (place_queue.h). It is asked after limits and authenticate, so
// that refused requests take no place. Cache hits count too, for their short time.
//
//   requests  a fixed number for each key, in a table that all workers share (LimitTable; the word is the count)
//   adaptive  one number for all requests of the policy, found by measuring (adaptive_limit.h). Measured is the time
//             from here to the first byte of the backend's answer, its queue and its tries included. Hits and refusals
//             of this node are not measured. If an answer did not come in time, the time until the failure counts.
//
// Requests of low priority may take only a share of the places, so they are refused first.
//
//   lanes        places of one tenant each. A request of a lane is counted there alone; with `adaptive` it is counted
//   by
//                both, so that no lane takes more than its share of the limit.
//   connections  how many connections of clients have requests under way. A connection counts once, with its first
//                request that is under way, and until its last one has ended.
//
// A request without a client (a revalidation) is not counted. A fetch that goes on for others after its client has left
// is counted until its end. Runtime: counts, and the adaptive limit, by policy, and by policy and lane. They survive
// every version, so a new limit also counts the requests in progress.
#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

#include "conf/model/policy.h"
#include "conf/policy/concurrency.h"
#include "core/clock.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/adaptive_limit.h"
#include "l7/policy/kinds.h"
#include "l7/policy/limit_table.h"
#include "l7/policy/place_queue.h"
#include "l7/policy/request_key.h"
#include "l7/wire/arena.h"
#include "l7/worker.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kConcurrencyKind = "concurrency";

// Indexes in Note::values.
enum : size_t { kBegunNs, kHeld };

using Count = std::atomic<uint64_t>;

struct InFlight final : Runtime {
  alignas(64) Count count{0};
};
struct LaneRuntime final : Runtime {
  alignas(64) Count count{0};
  Counter passed, refused;
};

// A lane, or the requests without one.
struct Lane {
  ConcurrencyLane config;
  std::shared_ptr<LaneRuntime> runtime;
};

// The places that a request has taken and gives back at its end. The object is in the arena of the exchange.
struct Held {
  Count* place = nullptr;        // a place in the policy's, its key's or its lane's count; null: none
  const Lane* lane = nullptr;    // null: the policy has no lanes
  Count* connection = nullptr;   // requests of its connection; null: connections are not limited
  Count* connections = nullptr;  // connections of its key
};

// Decrements the count. Returns true for the last one to leave.
bool leaves_last(Count& count) {
  uint64_t before = count.load();
  while (before > 0 && !count.compare_exchange_weak(before, before - 1)) {
  }
  return before == 1;
}

class ConcurrencyRule final : public Rule {
 public:
  ConcurrencyRule(const ConcurrencyPolicy& concurrency, Compiling& out)
      : Rule(Stage::concurrency, out.policy, kConcurrencyKind, out.registry),
        concurrency_(concurrency),
        terms_{concurrency.adaptive.least, concurrency.adaptive.most, concurrency.adaptive.initial,
               concurrency.adaptive.tolerance},
        retry_after_(std::to_string(concurrency.retry_after_s)),
        hash_key_(out.key),
        key_(out.content.concurrency->by, concurrency.prefix_v4, concurrency.prefix_v6, out),
        all_(out.registry.get<InFlight>(fmt::format("{}/{}/all", out.policy, kConcurrencyKind))) {
    if (concurrency.wait_ms != 0) {
      queue_ = out.registry.get<PlaceQueue>(fmt::format("{}/{}/queue", out.policy, kConcurrencyKind));
    }
    if (concurrency.adaptive.enabled) {
      adaptive_ =
          out.registry.get<AdaptiveLimit>(fmt::format("{}/{}/adaptive", out.policy, kConcurrencyKind), terms_.initial);
    } else if (!concurrency.by.empty() && concurrency.requests != 0) {
      table_ = out.registry.get<LimitTable>(fmt::format("{}/{}/{}", out.policy, kConcurrencyKind, concurrency.keys),
                                            concurrency.keys);
    }
    make_lanes(out);
    if (concurrency.connections != 0) make_connections(out);
  }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const override {
    if (exchange.policies.call != nullptr) return ask_again(exchange, arena, note, now_ns);
    const Subject subject = subject_of(exchange);
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    if (is_in(concurrency_.exempt, address)) return {RuleVerdict::exempt};
    const uint64_t key = concurrency_.by.empty() ? 0 : key_.of(subject, address, arena);
    Held held;
    held.lane = lane_of(subject, arena);
    if (concurrency_.connections != 0 && !take_connection(held, key, exchange.facts.connection, now_ns)) {
      return refuse(held, "connections");
    }
    const RuleDecision decision = ask_for_place(exchange, arena, note, now_ns, held, key, is_low(subject.route));
    if (decision.verdict == RuleVerdict::refused) give_connection_back(held);
    return decision;
  }
  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    if (note.verdict != RuleVerdict::refused) return;
    exchange.response.fields.add_own("Retry-After", "retry-after", retry_after_, FieldKind::other);
  }

  bool watches_end() const override { return true; }
  void on_end(const Exchange& exchange, const Note& note, uint64_t now_ns) const override {
    if (note.verdict != RuleVerdict::passed && note.verdict != RuleVerdict::waited) return;
    Held held = *reinterpret_cast<const Held*>(note.values[kHeld]);
    give_back(held);
    give_connection_back(held);
    if (adaptive_ == nullptr) return;
    if (const uint64_t took_ns = answer_time_ns(exchange, note.values[kBegunNs], now_ns); took_ns != 0) {
      adaptive_->note_answer(terms_, took_ns, now_ns);
    }
  }

  // Tells what a new request, on a connection of its own, would get now.
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    Arena arena;
    const uint64_t key = concurrency_.by.empty() ? 0 : key_.of(subject, address, arena);
    const Lane* const lane = lane_of(subject, arena);
    const Count* const place = find_place(lane, key);
    const uint64_t limit = limit_of(lane);
    const bool low = is_low(subject.route);
    if (!concurrency_.by.empty()) out["by"] = concurrency_.by;
    if (lane != nullptr) {
      out["tenant"] = concurrency_.tenant;
      out["lane"] = lane->config.name;
    }
    const uint64_t told_limit = is_own(lane) ? most_of(*lane) : limit;
    if (told_limit != UINT64_MAX) out["requests"] = told_limit;
    out["in_flight"] = now_in(is_own(lane) ? &lane->runtime->count : place);
    if (concurrency_.connections != 0) {
      out["connections"] = concurrency_.connections;
      out["connections_in_use"] = now_in(find_connections(key));
    }
    if (adaptive_ != nullptr) out["base_ms"] = adaptive_->base_ns() / 1e6;
    if (queue_ != nullptr) {
      out["waiting"] = queue_->length();
      out["queue"] = concurrency_.queue;
      out["wait_ms"] = concurrency_.wait_ms;
    }
    if (low) {
      out["low_priority"] = low_share_of(limit);
      out["low_share"] = concurrency_.low_share;
    }
    const RuleDecision decision = is_in(concurrency_.exempt, address) ? RuleDecision{RuleVerdict::exempt}
                                                                      : would_get(lane, place, key, limit, low);
    out["verdict"] = name(decision.verdict);
    if (*decision.detail != '\0') out["because_of"] = decision.detail;
  }

  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_concurrency_in_flight", "gauge", "Requests under way that a policy counts",
                   all_->count.load(std::memory_order_relaxed)});
    if (most() != UINT64_MAX) {
      out.push_back({"tidegate_l7_concurrency_limit", "gauge", "How many may be under way, of each key", most()});
    }
    if (queue_ != nullptr) {
      out.push_back(
          {"tidegate_l7_concurrency_waiting", "gauge", "Requests that wait for a place of a policy", queue_->length()});
    }
    for (const Lane& lane : lanes_) add_lane_samples(lane, out);
    if (connections_ != nullptr) {
      out.push_back({"tidegate_l7_concurrency_connections", "gauge",
                     "Connections of clients with requests under way that a policy counts",
                     connections_->count.load(std::memory_order_relaxed)});
    }
    const uint64_t forgotten =
        forgotten_of(table_) + forgotten_of(requests_of_connection_) + forgotten_of(connections_of_key_);
    if (table_ == nullptr && requests_of_connection_ == nullptr) return;
    out.push_back({"tidegate_l7_concurrency_keys_forgotten_total", "counter",
                   "Keys with requests under way that were forgotten, because the table was full", forgotten});
  }

 private:
  // A waiting request. If its client leaves after it got a place, the next waiter gets that place.
  struct PlaceCall final : Call {
    PlaceCall(const ConcurrencyRule& its_rule, const Held& its_held, uint64_t now_ns, Transaction& transaction)
        : rule(its_rule),
          held(its_held),
          since_ns(now_ns),
          waiter(std::make_shared<PlaceQueue::Waiter>(transaction.worker().loop(),
                                                      [&transaction] { transaction.resume(); })),
          timer(transaction.worker().loop(), [&transaction] { transaction.resume(); }) {}
    ~PlaceCall() override {
      if (joined && rule.queue_->leave(*held.place, waiter) && !used) rule.free_place(*held.place, held.lane);
      if (used || !joined) return;
      rule.give_lane_back(held);
      rule.give_connection_back(held);
    }
    const ConcurrencyRule& rule;  // belongs to the plan that the exchange has pinned
    Held held;
    const uint64_t since_ns;
    const PlaceQueue::WaiterPtr waiter;
    Timer timer;
    bool joined = true, used = false;
  };

  void make_lanes(Compiling& out) {
    if (concurrency_.lanes.empty()) return;
    tenant_ = out.content.concurrency->tenant;
    lanes_.reserve(concurrency_.lanes.size() + 1);
    ConcurrencyLane other;
    other.name = kConcurrencyOtherLane;
    const auto add = [&](const ConcurrencyLane& lane) {
      const std::string key = fmt::format("{}/{}/lane/{}", out.policy, kConcurrencyKind, lane.name);
      lanes_.push_back({lane, out.registry.get<LaneRuntime>(key)});
    };
    for (const ConcurrencyLane& lane : concurrency_.lanes) {
      const size_t index = lanes_.size();
      if (lane.values.empty()) tenants_.emplace_back(lane.name, index);
      for (const std::string& value : lane.values) tenants_.emplace_back(value, index);
      add(lane);
    }
    add(other);
    std::sort(tenants_.begin(), tenants_.end());
  }

  void make_connections(Compiling& out) {
    const auto key = [&](const char* what) {
      return fmt::format("{}/{}/{}/{}", out.policy, kConcurrencyKind, what, concurrency_.keys);
    };
    connections_ = out.registry.get<InFlight>(fmt::format("{}/{}/connections", out.policy, kConcurrencyKind));
    requests_of_connection_ = out.registry.get<LimitTable>(key("requests_of_connection"), concurrency_.keys);
    if (concurrency_.by.empty()) return;
    connections_of_key_ = out.registry.get<LimitTable>(key("connections_of_key"), concurrency_.keys);
  }

  // Null if the policy has no lanes. The last lane is for requests without another lane.
  const Lane* lane_of(const Subject& subject, Arena& arena) const {
    if (lanes_.empty()) return nullptr;
    const std::string_view tenant = value_of(*tenant_, subject, arena);
    const auto found = std::lower_bound(tenants_.begin(), tenants_.end(), tenant,
                                        [](const auto& entry, std::string_view text) { return entry.first < text; });
    return found == tenants_.end() || found->first != tenant ? &lanes_.back() : &lanes_[found->second];
  }
  bool is_own(const Lane* lane) const { return lane != nullptr && lane != &lanes_.back(); }

  // A connection is counted from its first request to the end of its last one. All requests of a connection belong to
  // one worker, so they do not race with each other.
  bool take_connection(Held& held, uint64_t key, uint64_t connection, uint64_t now_ns) const {
    const uint64_t words[2] = {key, connection};
    Count& own = count_of(*requests_of_connection_, siphash13_words(hash_key_, words), now_ns);
    Count& of_key = connections_of_key_ == nullptr ? connections_->count : count_of(*connections_of_key_, key, now_ns);
    if (own.fetch_add(1) == 0) {
      if (!take_place(of_key, concurrency_.connections)) {
        give_place_back(own);
        return false;
      }
      if (&of_key != &connections_->count) connections_->count.fetch_add(1, std::memory_order_relaxed);
    }
    held.connection = &own;
    held.connections = &of_key;
    return true;
  }
  void give_connection_back(Held& held) const {
    if (held.connection == nullptr) return;
    if (leaves_last(*std::exchange(held.connection, nullptr))) {
      give_place_back(*held.connections);
      if (held.connections != &connections_->count) give_place_back(connections_->count);
    }
  }

  // With `adaptive`, a request of a lane has a place of the lane and one of the policy.
  bool take_lane(const Held& held) const {
    if (adaptive_ == nullptr || !is_own(held.lane)) return true;
    return take_place(held.lane->runtime->count, most_of(*held.lane));
  }
  void give_lane_back(const Held& held) const {
    if (held.lane == nullptr || held.place == &held.lane->runtime->count) return;
    if (is_own(held.lane) && adaptive_ != nullptr) give_place_back(held.lane->runtime->count);
  }
  // Only for metrics: its place is in another count.
  bool counts_beside(const Held& held) const {
    return held.lane != nullptr && !is_own(held.lane) && held.place != &held.lane->runtime->count;
  }
  // Gives back everything except its connection. The place comes last, because others may wait for it.
  void give_back(const Held& held) const {
    if (counts_beside(held)) give_place_back(held.lane->runtime->count);
    give_lane_back(held);
    if (held.place != &all_->count) give_place_back(all_->count);
    free_place(*held.place, held.lane);
  }

  // The count for a request. Requests without a lane have their own count. A measured limit is for all requests
  // together.
  Count& place_of(const Lane* lane, bool in_lane, uint64_t key, uint64_t now_ns) const {
    if (in_lane) return lane->runtime->count;
    if (table_ != nullptr) return count_of(*table_, key, now_ns);
    return lane != nullptr && adaptive_ == nullptr ? lane->runtime->count : all_->count;
  }

  // How many may be in the count that place_of() names.
  uint64_t limit_of(const Lane* lane) const { return is_own(lane) && adaptive_ == nullptr ? most_of(*lane) : most(); }

  // For explain: the same counts, which are not made for it. Null: the key has none.
  const Count* find_place(const Lane* lane, uint64_t key) const {
    if (is_own(lane) && adaptive_ == nullptr) return &lane->runtime->count;
    if (table_ != nullptr) return table_->find(key);
    return lane != nullptr && adaptive_ == nullptr ? &lane->runtime->count : &all_->count;
  }
  const Count* find_connections(uint64_t key) const {
    return connections_of_key_ == nullptr ? &connections_->count : connections_of_key_->find(key);
  }
  static uint64_t now_in(const Count* count) { return count == nullptr ? 0 : count->load(std::memory_order_relaxed); }
  // What on_request would decide, in its order.
  RuleDecision would_get(const Lane* lane, const Count* place, uint64_t key, uint64_t limit, bool low) const {
    const auto refused = [](const char* why) { return RuleDecision{.verdict = RuleVerdict::refused, .detail = why}; };
    if (concurrency_.connections != 0 && now_in(find_connections(key)) >= concurrency_.connections) {
      return refused("connections");
    }
    const bool lane_is_full = is_own(lane) && now_in(&lane->runtime->count) >= most_of(*lane);
    if (lane_is_full && adaptive_ != nullptr) return refused("lane_full");
    const bool overtakes = queue_ != nullptr && place != nullptr && queue_->awaited(*place);
    if (!overtakes && now_in(place) < (low ? low_share_of(limit) : limit)) return {};
    if (low) return refused("low_priority");
    if (queue_ == nullptr) return refused(lane_is_full ? "lane_full" : "");
    return queue_->length() < concurrency_.queue ? RuleDecision{RuleVerdict::waited} : refused("queue_full");
  }

  RuleDecision ask_for_place(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns, Held& held, uint64_t key,
                             bool low) const {
    const bool in_lane = is_own(held.lane) && adaptive_ == nullptr;
    held.place = &place_of(held.lane, in_lane, key, now_ns);
    if (!take_lane(held)) return refuse(held, "lane_full");
    const uint64_t limit = limit_of(held.lane);
    const bool overtakes = queue_ != nullptr && queue_->awaited(*held.place);
    if (!overtakes && take_place(*held.place, low ? low_share_of(limit) : limit)) {
      return begin(arena, note, held, now_ns, false);
    }
    const char* why = low ? "low_priority" : in_lane ? "lane_full" : "";
    if (!low && queue_ != nullptr) {
      auto call = std::make_unique<PlaceCall>(*this, held, now_ns, *exchange.policies.transaction);
      if (queue_->join(*held.place, call->waiter, concurrency_.queue)) {
        call->timer.arm_at_ns(now_ns + concurrency_.wait_ms * kNsPerMs);
        queue_->serve(*held.place, limit);  // a place may have become free meanwhile
        exchange.policies.call = std::move(call);
        return RuleDecision{.waits = true};
      }
      call->joined = false;
      why = "queue_full";
    }
    give_lane_back(held);
    return refuse(held, why);
  }

  RuleDecision ask_again(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const {
    auto& call = static_cast<PlaceCall&>(*exchange.policies.call);
    if (call.waiter->granted()) {
      call.used = true;
      return begin(arena, note, call.held, now_ns, true);
    }
    if (now_ns - call.since_ns < concurrency_.wait_ms * kNsPerMs) return RuleDecision{.waits = true};
    return refuse(call.held, "waited");  // the end of the call gives back what the request had
  }
  // The request has a place.
  RuleDecision begin(Arena& arena, Note& note, const Held& held, uint64_t now_ns, bool waited) const {
    if (adaptive_ != nullptr) adaptive_->note_running(held.place->load(std::memory_order_relaxed));
    if (held.place != &all_->count) all_->count.fetch_add(1, std::memory_order_relaxed);
    if (held.lane != nullptr) {
      held.lane->runtime->passed.add();
      if (counts_beside(held)) held.lane->runtime->count.fetch_add(1, std::memory_order_relaxed);
    }
    note.values[kBegunNs] = now_ns;
    note.values[kHeld] = reinterpret_cast<uint64_t>(new (arena.allocate_aligned(sizeof(Held))) Held(held));
    return {waited ? RuleVerdict::waited : RuleVerdict::passed};
  }
  static RuleDecision refuse(const Held& held, const char* detail) {
    if (held.lane != nullptr) held.lane->runtime->refused.add();
    return {.verdict = RuleVerdict::refused, .failure = Failure::concurrency_limited, .detail = detail};
  }
  void free_place(Count& count, const Lane* lane) const {
    give_place_back(count);
    if (queue_ != nullptr) queue_->serve(count, limit_of(lane));
  }

  void add_lane_samples(const Lane& lane, std::vector<Sample>& out) const {
    const char* const name = lane.config.name.c_str();
    const auto add = [&](const char* family, const char* type, const char* help, uint64_t value) {
      out.push_back({family, type, help, value, "lane", name});
    };
    add("tidegate_l7_concurrency_lane_in_flight", "gauge", "Requests under way of a lane",
        lane.runtime->count.load(std::memory_order_relaxed));
    if (is_own(&lane)) {
      add("tidegate_l7_concurrency_lane_limit", "gauge", "How many of a lane may be under way", most_of(lane));
    }
    add("tidegate_l7_concurrency_lane_passed_total", "counter", "Requests of a lane that got a place",
        lane.runtime->passed.value());
    add("tidegate_l7_concurrency_lane_refused_total", "counter", "Requests of a lane that got none",
        lane.runtime->refused.value());
  }
  static uint64_t forgotten_of(const std::shared_ptr<LimitTable>& table) {
    return table == nullptr ? 0 : table->forgotten();
  }

  uint64_t most() const {
    if (adaptive_ != nullptr) return adaptive_->limit(terms_);
    return concurrency_.requests == 0 ? UINT64_MAX : concurrency_.requests;
  }
  // The most requests at one time in a lane that has its own limit.
  uint64_t most_of(const Lane& lane) const {
    return adaptive_ == nullptr ? lane.config.requests : share_of(most(), lane.config.share);
  }
  bool is_low(std::string_view route) const {
    const std::vector<std::string>& low = concurrency_.low_priority;
    return std::find(low.begin(), low.end(), route) != low.end();
  }
  // Low-priority requests may use a share of the places.
  uint64_t low_share_of(uint64_t limit) const { return share_of(limit, concurrency_.low_share); }
  static uint64_t share_of(uint64_t limit, double share) {
    if (limit == UINT64_MAX) return limit;
    return std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(limit) * share));
  }
  // A key is free if none of its requests runs. If no place is free, the key with the fewest requests is forgotten.
  static Count& count_of(LimitTable& table, uint64_t key, uint64_t now_ns) {
    return table.find_or_add(key, now_ns, [now_ns](uint64_t count) { return count == 0 ? 0 : now_ns + count; });
  }
  // 0 if it says nothing about the backends' load.
  static uint64_t answer_time_ns(const Exchange& exchange, uint64_t begun_ns, uint64_t now_ns) {
    if (exchange.timing.first_byte_ns > begun_ns) {
      return exchange.response.status < 500 ? exchange.timing.first_byte_ns - begun_ns : 0;
    }
    switch (exchange.outcome.failure) {
      case Failure::queue_timeout:
      case Failure::connect_timeout:
      case Failure::first_byte_timeout:
      case Failure::total_timeout:
      case Failure::exchange_timeout:
      case Failure::deadline_exceeded:
        return now_ns - begun_ns;
      default:
        return 0;
    }
  }

  const ConcurrencyPolicy concurrency_;
  const AdaptiveTerms terms_;
  const std::string retry_after_;
  const HashKey hash_key_;
  const RequestKey key_;
  const std::shared_ptr<InFlight> all_;
  std::shared_ptr<PlaceQueue> queue_;                    // null: requests do not wait
  std::shared_ptr<AdaptiveLimit> adaptive_;              // null: a fixed number
  std::shared_ptr<LimitTable> table_;                    // null: all requests are counted as one
  std::optional<LimitBy> tenant_;                        // nothing: there are no lanes
  std::vector<Lane> lanes_;                              // the last lane is `other`; empty: there are no lanes
  std::vector<std::pair<std::string, size_t>> tenants_;  // tenants with the indexes of their lanes, sorted
  std::shared_ptr<InFlight> connections_;                // null: connections are not limited
  std::shared_ptr<LimitTable> requests_of_connection_;
  std::shared_ptr<LimitTable> connections_of_key_;  // null: all connections are counted as one
};

}  // namespace

void compile_concurrency(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<ConcurrencyRule>(*policy.part<ConcurrencyPolicy>(kConcurrencyKind), out));
}

}  // namespace tidegate::l7::policy
