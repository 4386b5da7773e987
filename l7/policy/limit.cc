// SPDX-License-Identifier: Apache-2.0
// The limit policy (conf/policy/limit.h). It counts in one table for all workers, so no quota is divided among them.
// On the request: one look into the table. On the answer: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-
// headers), and Retry-After where it refused.
// With `shared` a Redis server keeps the quota (SharedQuota), and this proxy spends leases of it.
// An operator may change the quota without a version (live state): the rule has the quota that holds.
// A request without a client (a revalidation, a mirror's copy) is not counted: the one that it repeats was.
// Runtime: a LimitTable by policy, algorithm and number of keys. It survives other changes: a new quota goes on with
// the counts that are there.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model/policy.h"
#include "conf/policy/limit.h"
#include "core/clock.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/kinds.h"
#include "l7/policy/limit_table.h"
#include "l7/policy/limiters.h"
#include "l7/policy/request_key.h"
#include "l7/policy/shared_quota.h"
#include "l7/wire/arena.h"
#include "l7/worker.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kLimitKind = "limit";

// Indexes in Note::values.
enum : size_t { kRemaining, kResetNs, kRetryNs };
constexpr size_t kAskedSinceNs = kResetNs;  // used while a shared quota is asked
constexpr uint64_t kUnknown = SharedQuota::kUnknown;
constexpr int kQuotaTries = 3;

// A request that waits for a lease.
struct LeaseCall final : Call {
  explicit LeaseCall(Transaction& transaction)
      : waiter(std::make_shared<SharedQuota::Waiter>(transaction.worker().loop(),
                                                     [&transaction] { transaction.resume(); })) {}
  ~LeaseCall() override { waiter->cancel(); }
  const std::shared_ptr<SharedQuota::Waiter> waiter;
};
struct Unanswered final : Runtime {
  Counter count;
};

uint64_t whole_seconds(uint64_t ns) { return (ns + kNsPerS - 1) / kNsPerS; }

// The states of another process are valid only with the same key of the hashes.
std::shared_ptr<LimitTable> table_of(const LimitPolicy& limit, Compiling& out, TableMemories& memories) {
  const std::string key =
      fmt::format("{}/{}/{}/{}", out.policy, kLimitKind, static_cast<int>(limit.algorithm), limit.keys);
  return out.registry.get<LimitTable>(key, memories, key, siphash13(out.key, "limit table"), limit.keys);
}

// A limit by identity or claim can be asked only after authentication.
Stage stage_of(const LimitPolicy& limit) {
  const bool by_identity = std::any_of(limit.by.begin(), limit.by.end(), needs_identity);
  return by_identity ? Stage::identity_limit : Stage::limit;
}

class LimitRule final : public Rule {
 public:
  LimitRule(const LimitPolicy& limit, bool changed, Compiling& out)
      : Rule(stage_of(limit), out.policy, kLimitKind, out.registry),
        limit_(limit),
        changed_(changed),
        key_(out.content.limit_by, limit.prefix_v4, limit.prefix_v6, out),
        bucket_{std::max<uint64_t>(1, limit.per_ms * kNsPerMs / limit.requests),
                limit.burst == 0 ? limit.requests : limit.burst, limit.wait_ms * kNsPerMs},
        window_{limit.per_ms * kNsPerMs, limit.requests},
        memories_(out.registry.get<TableMemories>(TableMemories::kRegistryKey)),
        table_(table_of(limit, out, *memories_)),
        policy_field_(
            fmt::format("\"{}\";q={};w={}", out.policy, limit.requests, whole_seconds(limit.per_ms * kNsPerMs))),
        field_begin_(fmt::format("\"{}\";r=", out.policy)) {
    if (!limit.shared.enabled) return;
    const uint64_t burst = limit.burst == 0 ? limit.requests : limit.burst;
    terms_ = {std::max<uint64_t>(1, limit.per_ms * 1'000 / limit.requests), burst,
              SharedQuota::Terms::lease_of(limit.requests, limit.per_ms, burst)};
    const SharedLimit& shared = limit.shared;
    const std::string identity =
        fmt::format("{}/{}/shared/{}/{}/{}/{}/{}/{}", out.policy, kLimitKind, limit.keys, limit.fields,
                    shared.address.to_string(), shared.timeout_ms, shared.user, shared.password);
    quota_ = out.registry.get<SharedQuota>(
        identity, RedisLink::Options{shared.address, shared.user, shared.password, shared.timeout_ms}, limit.keys,
        fmt::format("tidegate:limit:{}:", out.policy), limit.fields);
    unanswered_ = out.registry.get<Unanswered>(fmt::format("{}/{}/unanswered", out.policy, kLimitKind));
  }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note& note, uint64_t now_ns) const override {
    if (note.wait_until_ns != 0)
      return {RuleVerdict::waited, Failure::none, 0};  // its turn was reserved before the wait
    const Subject subject = subject_of(exchange);
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    if (is_in(limit_.exempt, address)) return {RuleVerdict::exempt, Failure::none, 0};
    const uint64_t key = key_.of(subject, address, arena);
    if (quota_ != nullptr) {
      if (const std::optional<RuleDecision> decision = ask_quota(exchange, note, key, now_ns)) return *decision;
    }
    const Allowance allowance = take(key, now_ns);
    note.values = {allowance.remaining, allowance.reset_ns, allowance.retry_ns};
    if (!allowance.allowed) return {RuleVerdict::refused, Failure::rate_limited, 0};
    if (allowance.retry_ns != 0) return {RuleVerdict::waited, Failure::none, now_ns + allowance.retry_ns};
    return {};
  }

  // A key that is in no cache of the processor costs more than the rest of the decision.
  bool foresees() const override { return key_.by_client_alone() && quota_ == nullptr; }
  void foresee(const IpAddress& client) const override { table_->foresee(key_.of_client(client)); }

  void on_answer(Exchange& exchange, Arena& arena, const Note& note) const override {
    if (note.verdict == RuleVerdict::none || note.verdict == RuleVerdict::exempt) return;
    FieldList& fields = exchange.response.fields;
    if (note.verdict == RuleVerdict::refused) {
      const fmt::format_int seconds(std::max<uint64_t>(1, whole_seconds(note.values[kRetryNs])));
      fields.add_own("Retry-After", "retry-after", arena.copy({seconds.data(), seconds.size()}), FieldKind::other);
    }
    if (!limit_.fields) return;
    fields.add_own("RateLimit-Policy", "ratelimit-policy", policy_field_, FieldKind::other);
    if (note.values[kRemaining] == kUnknown) return;  // for a shared quota whose server does not answer
    const fmt::format_int left(note.values[kRemaining]), reset(whole_seconds(note.values[kResetNs]));
    char* const text = arena.allocate(field_begin_.size() + left.size() + 3 + reset.size());
    char* end = std::copy(field_begin_.begin(), field_begin_.end(), text);
    end = std::copy_n(left.data(), left.size(), end);
    end = std::copy_n(";t=", 3, end);
    end = std::copy_n(reset.data(), reset.size(), end);
    fields.add_own("RateLimit", "ratelimit", {text, static_cast<size_t>(end - text)}, FieldKind::other);
  }

  void explain(const Subject& subject, uint64_t now_ns, nlohmann::json& out) const override {
    out["requests"] = limit_.requests;
    out["per_ms"] = limit_.per_ms;
    out["changed_by_operator"] = changed_;
    out["by"] = limit_.by.empty() ? std::vector<std::string>{"client"} : limit_.by;
    const std::optional<IpAddress> address = IpAddress::parse(subject.client);
    if (is_in(limit_.exempt, address)) {
      out["verdict"] = name(RuleVerdict::exempt);
      return;
    }
    Arena arena;
    if (quota_ != nullptr) return explain_quota(key_.of(subject, address, arena), now_ns, out);
    const std::atomic<uint64_t>* const state = table_->find(key_.of(subject, address, arena));
    const Allowance allowance = would_take(state == nullptr ? 0 : state->load(std::memory_order_relaxed), now_ns);
    const bool at_once = allowance.allowed && allowance.retry_ns == 0;
    out["remaining"] = at_once ? allowance.remaining + 1 : 0;
    out["verdict"] = name(at_once             ? RuleVerdict::passed
                          : allowance.allowed ? RuleVerdict::waited
                                              : RuleVerdict::refused);
    if (!at_once) out["retry_after_ms"] = allowance.retry_ns / kNsPerMs;
  }

  void add_samples(std::vector<Sample>& out) const override {
    if (quota_ != nullptr) {
      out.push_back({"tidegate_l7_limit_redis_up", "gauge", "Whether the server of a shared quota answers",
                     quota_->link().up() ? uint64_t{1} : uint64_t{0}});
      out.push_back({"tidegate_l7_limit_redis_calls_total", "counter", "Commands to the server of a shared quota",
                     quota_->link().calls()});
      out.push_back({"tidegate_l7_limit_redis_failures_total", "counter",
                     "Connections and commands that the server of a shared quota did not answer in time, or refused",
                     quota_->link().failures()});
      out.push_back({"tidegate_l7_limit_redis_unanswered_total", "counter",
                     "Requests that were decided as on_failure says", unanswered_->count.value()});
    }
    out.push_back({"tidegate_l7_limit_keys_forgotten_total", "counter",
                   "Keys of a limit that were forgotten before they were free, because the table was full",
                   table_->forgotten()});
    out.push_back({"tidegate_l7_limit_table_bytes", "gauge", "Memory of a limit's table of keys", table_->bytes()});
  }

 private:
  void explain_quota(uint64_t key, uint64_t now_ns, nlohmann::json& out) const {
    out["shared"] = {{"redis", limit_.shared.address.to_string()}, {"up", quota_->link().up()}};
    const SharedQuota::Answer answer = quota_->would_answer(key, now_ns);
    const bool fails_closed = answer == SharedQuota::Answer::failed && limit_.shared.on_failure == OnFailure::closed;
    out["verdict"] =
        name(answer == SharedQuota::Answer::refused || fails_closed ? RuleVerdict::refused : RuleVerdict::passed);
  }
  Allowance would_take(uint64_t state, uint64_t now_ns) const {
    return limit_.algorithm == LimitAlgorithm::token_bucket ? bucket_.take(state, now_ns) : window_.take(state, now_ns);
  }
  std::atomic<uint64_t>& state_of(uint64_t key, uint64_t now_ns) const {
    if (limit_.algorithm == LimitAlgorithm::token_bucket) {
      return table_->find_or_add(key, now_ns, [](uint64_t state) { return RequestBucket::free_at_ns(state); });
    }
    return table_->find_or_add(key, now_ns, [&](uint64_t state) { return window_.free_at_ns(state, now_ns); });
  }
  // The decision of the shared quota. Nothing if the server cannot be asked: then this proxy's own quota decides.
  std::optional<RuleDecision> ask_quota(Exchange& exchange, Note& note, uint64_t key, uint64_t now_ns) const {
    PolicyUse& use = exchange.policies;
    if (use.call != nullptr) {
      const auto& call = static_cast<const LeaseCall&>(*use.call);
      if (!call.waiter->over()) return RuleDecision{.waits = true};
      if (call.waiter->failed()) return without_quota(note);
    }
    if (note.values[kAskedSinceNs] == 0) note.values[kAskedSinceNs] = now_ns;
    for (int tries = 0; tries < kQuotaTries; ++tries) {
      const SharedQuota::Taken taken = quota_->take(key, terms_, now_ns);
      switch (taken.answer) {
        case SharedQuota::Answer::allowed:
          note.values = {taken.left, time_to_fill_ns(taken.left), 0};
          return RuleDecision{};
        case SharedQuota::Answer::refused:
          note.values = {0, time_to_fill_ns(1) + taken.retry_ns, taken.retry_ns};
          return RuleDecision{.verdict = RuleVerdict::refused, .failure = Failure::rate_limited};
        case SharedQuota::Answer::failed:
          return without_quota(note);
        case SharedQuota::Answer::asks:
          break;
      }
      // Other requests may have spent the tokens of the new lease. After `timeout` this request waits no longer.
      if (now_ns - note.values[kAskedSinceNs] >= limit_.shared.timeout_ms * kNsPerMs) break;
      auto call = std::make_unique<LeaseCall>(*use.transaction);
      quota_->wait(key, call->waiter);
      const bool over = call->waiter->over();
      use.call = std::move(call);
      if (!over) return RuleDecision{.waits = true};
    }
    return without_quota(note);
  }
  // The time until the bucket is full again, if nobody takes tokens. It may hold less than was last known.
  uint64_t time_to_fill_ns(uint64_t left) const {
    return (terms_.burst - std::min(left, terms_.burst)) * terms_.interval_us * 1'000;
  }
  std::optional<RuleDecision> without_quota(Note& note) const {
    unanswered_->count.add();
    switch (limit_.shared.on_failure) {
      case OnFailure::local:
        return std::nullopt;
      case OnFailure::open:
        note.values = {kUnknown, 0, 0};
        return RuleDecision{};
      case OnFailure::closed:
        break;
    }
    note.values = {kUnknown, 0, kNsPerS};
    return RuleDecision{.verdict = RuleVerdict::refused, .failure = Failure::rate_limited, .detail = "quota_unknown"};
  }

  // Takes one request of the quota. If requests may wait, its turn is reserved, and retry_ns says when it is.
  Allowance take(uint64_t key, uint64_t now_ns) const {
    std::atomic<uint64_t>& state = state_of(key, now_ns);
    uint64_t before = state.load(std::memory_order_relaxed);
    for (;;) {
      const Allowance allowance = would_take(before, now_ns);
      if (!allowance.allowed) return allowance;
      if (state.compare_exchange_weak(before, allowance.state, std::memory_order_relaxed)) return allowance;
    }
  }

  const LimitPolicy limit_;
  const bool changed_;  // an operator has changed the quota of the configuration
  const RequestKey key_;
  const RequestBucket bucket_;
  const SlidingWindow window_;
  const std::shared_ptr<TableMemories> memories_;  // kept, so that the next process finds the table in them
  const std::shared_ptr<LimitTable> table_;
  const std::string policy_field_, field_begin_;
  SharedQuota::Terms terms_{};
  std::shared_ptr<SharedQuota> quota_;  // null: the quota belongs to this proxy only
  std::shared_ptr<Unanswered> unanswered_;
};

}  // namespace

void compile_limit(const Policy& policy, Compiling& out) {
  LimitPolicy limit = *policy.part<LimitPolicy>(kLimitKind);
  const bool changed = out.live_state != nullptr && take_quota(*out.live_state, policy.name, limit);
  out.rules.push_back(std::make_unique<LimitRule>(limit, changed, out));
}

}  // namespace tidegate::l7::policy
