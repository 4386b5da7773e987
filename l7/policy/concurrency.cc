// SPDX-License-Identifier: Apache-2.0
// The concurrency policy (conf/policy/concurrency.h). On the request: one is added to the count of its key, or it is
// refused (503, Retry-After), at once or after a wait (`wait`). At the end of the exchange the count goes back, and who
// waits for it longest gets the place (place_queue.h). It is asked after limits and authenticate, so that refused
// requests take no place; hits of the cache count too, for as short as they are.
//
//   requests  a fixed number for each key, in a table that all workers share (LimitTable; the word is the count)
//   adaptive  one number for all requests of the policy, found by measuring (adaptive_limit.h). Measured is the time
//             from here to the first byte of the backend's answer, its queue and its tries included. A hit and a
//             refusal of this node tell nothing. An answer that did not come in its time counts with what it took.
//
// Requests of low priority get no place when a share of them is taken, so they are refused first.
//
// A request without a client (a revalidation) is not counted. A fetch that goes on for others after its client has left
// is counted until its end.
// Runtime: counts, and the adaptive limit, by policy. They survive every version, so a new number holds for what runs.
#include <fmt/format.h>

#include <algorithm>

#include <nlohmann/json.hpp>

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

// Places in Note::values.
enum : size_t { kBegunNs, kCount, kWaitsSinceNs };

struct InFlight final : Runtime {
  alignas(64) std::atomic<uint64_t> count{0};
};

class ConcurrencyRule final : public Rule {
 public:
  ConcurrencyRule(const ConcurrencyPolicy& concurrency, Compiling& out)
      : Rule(Stage::concurrency, out.policy, kConcurrencyKind, out.registry),
        concurrency_(concurrency),
        terms_{concurrency.adaptive.least, concurrency.adaptive.most, concurrency.adaptive.initial,
               concurrency.adaptive.tolerance},
        retry_after_(std::to_string(concurrency.retry_after_s)),
        key_(concurrency.by, concurrency.prefix_v4, concurrency.prefix_v6, out.key),
        all_(out.registry.get<InFlight>(fmt::format("{}/{}/all", out.policy, kConcurrencyKind))) {
    if (concurrency.wait_ms != 0) {
      queue_ = out.registry.get<PlaceQueue>(fmt::format("{}/{}/queue", out.policy, kConcurrencyKind));
    }
    if (concurrency.adaptive.enabled) {
      adaptive_ =
          out.registry.get<AdaptiveLimit>(fmt::format("{}/{}/adaptive", out.policy, kConcurrencyKind), terms_.initial);
    } else if (!concurrency.by.empty()) {
      table_ = out.registry.get<LimitTable>(fmt::format("{}/{}/{}", out.policy, kConcurrencyKind, concurrency.keys),
                                            concurrency.keys);
    }
  }

  Decision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const override {
    if (exchange.policies.call != nullptr) return ask_again(exchange, note, now_ns);
    const Subject subject = subject_of(exchange);
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    if (is_in(concurrency_.exempt, address)) return {Verdict::exempt};
    std::atomic<uint64_t>& count = table_ == nullptr ? all_->count : count_of(key_.of(subject, address, arena), now_ns);
    const bool low = is_low(subject.route);
    const bool overtakes = queue_ != nullptr && queue_->awaited(count);
    if (!overtakes && take_place(count, low ? most_of_low() : most())) return begin(note, count, now_ns, false);
    if (low || queue_ == nullptr) return refuse(low ? "low_priority" : "");
    auto call = std::make_unique<PlaceCall>(*this, count, *exchange.policies.transaction);
    if (!queue_->join(count, call->waiter, concurrency_.queue)) {
      call->joined = false;
      return refuse("queue_full");
    }
    note.values[kWaitsSinceNs] = now_ns;
    call->timer.arm_at_ns(now_ns + concurrency_.wait_ms * kNsPerMs);
    queue_->serve(count, most());  // a place may have become free meanwhile
    exchange.policies.call = std::move(call);
    return Decision{.waits = true};
  }
  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    if (note.verdict != Verdict::refused) return;
    exchange.response.fields.add_own("Retry-After", "retry-after", retry_after_, FieldKind::other);
  }

  bool watches_end() const override { return true; }
  void on_end(const Exchange& exchange, const Note& note, uint64_t now_ns) const override {
    if (note.verdict != Verdict::passed && note.verdict != Verdict::waited) return;
    free_place(*reinterpret_cast<std::atomic<uint64_t>*>(note.values[kCount]));
    if (table_ != nullptr) give_place_back(all_->count);
    if (adaptive_ == nullptr) return;
    if (const uint64_t took_ns = answer_time_ns(exchange, note.values[kBegunNs], now_ns); took_ns != 0) {
      adaptive_->note_answer(terms_, took_ns, now_ns);
    }
  }

  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    const std::atomic<uint64_t>* count = &all_->count;
    if (table_ != nullptr) {
      Arena arena;
      count = table_->find(key_.of(subject, address, arena));
      out["by"] = concurrency_.by;
    }
    const uint64_t running = count == nullptr ? 0 : count->load(std::memory_order_relaxed);
    out["requests"] = most();
    out["in_flight"] = running;
    if (adaptive_ != nullptr) out["base_ms"] = adaptive_->base_ns() / 1e6;
    if (queue_ != nullptr) out["waiting"] = queue_->length();
    const bool low = is_low(subject.route);
    if (low) out["low_priority"] = most_of_low();
    const bool has_place = running < (low ? most_of_low() : most());
    const bool may_wait = !low && queue_ != nullptr && queue_->length() < concurrency_.queue;
    out["verdict"] = name(is_in(concurrency_.exempt, address) ? Verdict::exempt
                          : has_place                         ? Verdict::passed
                          : may_wait                          ? Verdict::waited
                                                              : Verdict::refused);
  }

  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_concurrency_in_flight", "gauge", "Requests under way that a policy counts",
                   all_->count.load(std::memory_order_relaxed)});
    out.push_back({"tidegate_l7_concurrency_limit", "gauge", "How many may be under way, of each key", most()});
    if (queue_ != nullptr) {
      out.push_back(
          {"tidegate_l7_concurrency_waiting", "gauge", "Requests that wait for a place of a policy", queue_->length()});
    }
    if (table_ == nullptr) return;
    out.push_back({"tidegate_l7_concurrency_keys_forgotten_total", "counter",
                   "Keys with requests under way that were forgotten, because the table was full",
                   table_->forgotten()});
  }

 private:
  // A request that waits. If its client leaves when it has a place already, the next one gets that.
  struct PlaceCall final : Call {
    PlaceCall(const ConcurrencyRule& its_rule, std::atomic<uint64_t>& its_count, Transaction& transaction)
        : rule(its_rule),
          count(its_count),
          waiter(std::make_shared<PlaceQueue::Waiter>(transaction.worker().loop(),
                                                      [&transaction] { transaction.resume(); })),
          timer(transaction.worker().loop(), [&transaction] { transaction.resume(); }) {}
    ~PlaceCall() override {
      if (joined && rule.queue_->leave(count, waiter) && !used) rule.free_place(count);
    }
    const ConcurrencyRule& rule;  // of the plan that the exchange has pinned
    std::atomic<uint64_t>& count;
    const PlaceQueue::WaiterPtr waiter;
    Timer timer;
    bool joined = true, used = false;
  };

  Decision ask_again(Exchange& exchange, Note& note, uint64_t now_ns) const {
    auto& call = static_cast<PlaceCall&>(*exchange.policies.call);
    if (call.waiter->granted()) {
      call.used = true;
      return begin(note, call.count, now_ns, true);
    }
    if (now_ns - note.values[kWaitsSinceNs] < concurrency_.wait_ms * kNsPerMs) return Decision{.waits = true};
    return refuse("waited");
  }
  // It has a place.
  Decision begin(Note& note, std::atomic<uint64_t>& count, uint64_t now_ns, bool waited) const {
    if (adaptive_ != nullptr) adaptive_->note_running(count.load(std::memory_order_relaxed));
    if (table_ != nullptr) all_->count.fetch_add(1, std::memory_order_relaxed);
    note.values[kBegunNs] = now_ns;
    note.values[kCount] = reinterpret_cast<uint64_t>(&count);  // in the pinned plan's runtime
    return {waited ? Verdict::waited : Verdict::passed};
  }
  static Decision refuse(const char* detail) {
    return {.verdict = Verdict::refused, .failure = Failure::concurrency_limited, .detail = detail};
  }
  void free_place(std::atomic<uint64_t>& count) const {
    give_place_back(count);
    if (queue_ != nullptr) queue_->serve(count, most());
  }

  uint64_t most() const { return adaptive_ == nullptr ? concurrency_.requests : adaptive_->limit(terms_); }
  bool is_low(std::string_view route) const {
    const std::vector<std::string>& low = concurrency_.low_priority;
    return std::find(low.begin(), low.end(), route) != low.end();
  }
  // Places that others leave free are theirs, up to a share.
  uint64_t most_of_low() const {
    return std::max<uint64_t>(1, static_cast<uint64_t>(static_cast<double>(most()) * concurrency_.low_share));
  }
  // A key is free when nothing of it runs. If no place is free, the one with the fewest is forgotten.
  std::atomic<uint64_t>& count_of(uint64_t key, uint64_t now_ns) const {
    return table_->find_or_add(key, now_ns, [now_ns](uint64_t count) { return count == 0 ? 0 : now_ns + count; });
  }
  // 0: it tells nothing of the backends' load.
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
  const RequestKey key_;
  const std::shared_ptr<InFlight> all_;
  std::shared_ptr<PlaceQueue> queue_;        // null: nobody waits
  std::shared_ptr<AdaptiveLimit> adaptive_;  // null: a fixed number
  std::shared_ptr<LimitTable> table_;        // null: all requests are counted as one
};

}  // namespace

void compile_concurrency(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<ConcurrencyRule>(*policy.part<ConcurrencyPolicy>(kConcurrencyKind), out));
}

}  // namespace tidegate::l7::policy
