// SPDX-License-Identifier: Apache-2.0
// The concurrency policy (conf/policy/concurrency.h). On the request: one is added to the count of its key, or it is
// refused at once (503, Retry-After). At the end of the exchange the count goes back. It is asked after limits and
// authenticate, so that refused requests take no place; hits of the cache count too, for as short as they are.
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
#include "l7/policy/request_key.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kConcurrencyKind = "concurrency";

// Places in Note::values.
enum : size_t { kBegunNs, kCount };

struct InFlight final : Runtime {
  alignas(64) std::atomic<uint64_t> count{0};
};

// Takes a place of `most`. Nothing: there is none.
std::optional<uint64_t> take_place(std::atomic<uint64_t>& count, uint64_t most) {
  uint64_t before = count.load(std::memory_order_relaxed);
  do {
    if (before >= most) return std::nullopt;
  } while (!count.compare_exchange_weak(before, before + 1, std::memory_order_relaxed));
  return before + 1;
}

// A count that was forgotten because its table was full may be 0 already, or another key's.
void give_place_back(std::atomic<uint64_t>& count) {
  uint64_t before = count.load(std::memory_order_relaxed);
  while (before > 0 && !count.compare_exchange_weak(before, before - 1, std::memory_order_relaxed)) {
  }
}

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
    if (concurrency.adaptive.enabled) {
      adaptive_ =
          out.registry.get<AdaptiveLimit>(fmt::format("{}/{}/adaptive", out.policy, kConcurrencyKind), terms_.initial);
    } else if (!concurrency.by.empty()) {
      table_ = out.registry.get<LimitTable>(fmt::format("{}/{}/{}", out.policy, kConcurrencyKind, concurrency.keys),
                                            concurrency.keys);
    }
  }

  Decision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const override {
    const Subject subject = subject_of(exchange);
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    if (is_in(concurrency_.exempt, address)) return {Verdict::exempt};
    std::atomic<uint64_t>& count = table_ == nullptr ? all_->count : count_of(key_.of(subject, address, arena), now_ns);
    const bool low = is_low(subject.route);
    const std::optional<uint64_t> running = take_place(count, low ? most_of_low() : most());
    if (!running) {
      return {
          .verdict = Verdict::refused, .failure = Failure::concurrency_limited, .detail = low ? "low_priority" : ""};
    }
    if (adaptive_ != nullptr) adaptive_->note_running(*running);
    if (table_ != nullptr) all_->count.fetch_add(1, std::memory_order_relaxed);
    note.values[kBegunNs] = now_ns;
    note.values[kCount] = reinterpret_cast<uint64_t>(&count);  // in the pinned plan's runtime
    return {};
  }
  void on_answer(Exchange& exchange, Arena&, const Note& note) const override {
    if (note.verdict != Verdict::refused) return;
    exchange.response.fields.add_own("Retry-After", "retry-after", retry_after_, FieldKind::other);
  }

  bool watches_end() const override { return true; }
  void on_end(const Exchange& exchange, const Note& note, uint64_t now_ns) const override {
    if (note.verdict != Verdict::passed) return;
    give_place_back(*reinterpret_cast<std::atomic<uint64_t>*>(note.values[kCount]));
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
    const bool low = is_low(subject.route);
    if (low) out["low_priority"] = most_of_low();
    const bool has_place = running < (low ? most_of_low() : most());
    out["verdict"] = name(is_in(concurrency_.exempt, address) ? Verdict::exempt
                          : has_place                         ? Verdict::passed
                                                              : Verdict::refused);
  }

  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_concurrency_in_flight", "gauge", "Requests under way that a policy counts",
                   all_->count.load(std::memory_order_relaxed)});
    out.push_back({"tidegate_l7_concurrency_limit", "gauge", "How many may be under way, of each key", most()});
    if (table_ == nullptr) return;
    out.push_back({"tidegate_l7_concurrency_keys_forgotten_total", "counter",
                   "Keys with requests under way that were forgotten, because the table was full",
                   table_->forgotten()});
  }

 private:
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
  std::shared_ptr<AdaptiveLimit> adaptive_;  // null: a fixed number
  std::shared_ptr<LimitTable> table_;        // null: all requests are counted as one
};

}  // namespace

void compile_concurrency(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<ConcurrencyRule>(*policy.part<ConcurrencyPolicy>(kConcurrencyKind), out));
}

}  // namespace tidegate::l7::policy
