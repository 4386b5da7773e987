// SPDX-License-Identifier: Apache-2.0
// The aggregate policy (conf/policy/aggregate.h): asks several backends at one time, and makes one JSON object of their
// answers. It replaces the route's own backend for GET and HEAD. Other methods pass.
//
//   on_request → ask() all parts (BackendCall) → waits → judge() each part that is over → compose() | refused
//
// A part has failed if it has no answer in time, a status outside of 2xx, or a body that is not JSON, has a content
// coding or is too long. If the part is required, the request ends at once with that failure, and the other calls are
// cancelled. Otherwise `fallback` replaces it, and the member `errors` says why. All parts have one deadline, in
// addition to the request's own time limits.
//
// Memory: each body is bounded by `most`. Its bytes beyond 16 KiB, and the answer, are taken from the worker's budget
// for bodies. While the answer is composed, both exist.
//
// A request without a client has no chain, so it never comes here. The results of calls count for the backends' pools.
// Runtime: AggregateCounts, by policy and part.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/model.h"
#include "conf/model/policy.h"
#include "conf/model/pool.h"
#include "conf/policy/aggregate.h"
#include "conf/policy/transform.h"
#include "core/clock.h"
#include "core/metrics.h"
#include "l7/exchange/backend_call.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/policy/json_scan.h"
#include "l7/policy/kinds.h"
#include "l7/policy/names.h"
#include "l7/policy/transformer.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kAggregateKind = "aggregate";

struct AggregateCounts final : Runtime {
  Counter asked, failed;
};
struct AggregateAnswers final : Runtime {
  Counter partial;
};

struct CompiledPart {
  CompiledPart(const AggregatePart& part, const TransformContent& content)
      : config(part),
        target(request_of(part), content),
        key(nlohmann::json(part.name).dump() + ":"),
        fallback(part.fallback.empty() ? "null" : part.fallback) {}
  const AggregatePart config;
  const Transformer target;
  const std::string key, fallback;  // as they are written in the answer
  std::string pool_name;
  std::shared_ptr<AggregateCounts> counts;
};

struct AggregateCall final : Call {
  std::vector<std::unique_ptr<BackendCall>> calls;  // by part
  std::vector<const char*> faults;                  // why a part cannot be used; null: it can be used, or is not over
  std::vector<bool> judged;
};

class AggregateRule final : public Rule {
 public:
  AggregateRule(const AggregatePolicy& aggregate, Compiling& out)
      : Rule(Stage::aggregate, out.policy, kAggregateKind, out.registry),
        timeout_ns_(aggregate.timeout_ms * kNsPerMs),
        most_(aggregate.most),
        errors_(aggregate.errors.empty() ? std::string() : nlohmann::json(aggregate.errors).dump() + ":{"),
        answers_(out.registry.get<AggregateAnswers>(fmt::format("{}/{}/answers", out.policy, kAggregateKind))) {
    for (const std::string& name : aggregate.request_headers) request_headers_.push_back(lower_case(name));
    parts_.reserve(aggregate.parts.size());
    for (size_t i = 0; i < aggregate.parts.size(); ++i) {
      const AggregatePart& part = aggregate.parts[i];
      CompiledPart& compiled = parts_.emplace_back(part, out.content.aggregate[i]);
      compiled.pool_name = out.model->pools[part.pool].name;
      compiled.counts =
          out.registry.get<AggregateCounts>(fmt::format("{}/{}/part/{}", out.policy, kAggregateKind, part.name));
    }
  }

  RuleDecision on_request(Exchange& exchange, Arena& arena, Note&, uint64_t now_ns) const override {
    PolicyUse& use = exchange.policies;
    if (use.call == nullptr) {
      if (exchange.route == nullptr || (exchange.request.method != "GET" && !exchange.request.is_head())) {
        return {RuleVerdict::exempt};
      }
      if (is_loop(exchange)) return refused(Failure::loop_detected, "aggregate_loop");
      auto call = std::make_unique<AggregateCall>();
      const TransformFault fault = ask(exchange, arena, *call);
      if (fault != TransformFault::none) return refused(Failure::not_transformable, name(fault));
      use.call = std::move(call);
    }
    auto& call = static_cast<AggregateCall&>(*use.call);
    bool all_over = true;
    for (size_t i = 0; i < parts_.size(); ++i) {
      call.calls[i]->advance();
      if (!call.calls[i]->over()) {
        all_over = false;
      } else if (!call.judged[i]) {
        call.judged[i] = true;
        if (const std::optional<RuleDecision> end = judge(i, exchange, arena, call)) return *end;
      }
    }
    if (!all_over) return {.waits = true};
    compose(call, exchange.policies.transaction->answer_buffer());
    exchange.timing.first_byte_ns = now_ns;
    return {.verdict = RuleVerdict::answered, .buffered = true, .status = 200, .content_type = "application/json"};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}

  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    for (const CompiledPart& part : parts_) {
      out["parts"].push_back(
          {{"name", part.config.name}, {"pool", part.pool_name}, {"required", part.config.required}});
    }
    out["timeout_ms"] = timeout_ns_ / kNsPerMs;
    const bool answers = subject.request.method == "GET" || subject.request.is_head();
    out["verdict"] = name(answers ? RuleVerdict::answered : RuleVerdict::exempt);
  }
  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_aggregate_partial_total", "counter",
                   "Answers made of several backends' answers in which a part is missing", answers_->partial.value()});
    for (const CompiledPart& part : parts_) {
      out.push_back({"tidegate_l7_aggregate_parts_total", "counter", "Parts of answers that backends were asked for",
                     part.counts->asked.value(), "part", part.config.name.c_str()});
      out.push_back({"tidegate_l7_aggregate_parts_failed_total", "counter", "Parts of answers that could not be had",
                     part.counts->failed.value(), "part", part.config.name.c_str()});
    }
  }

 private:
  static RuleDecision refused(Failure failure, const char* detail) {
    return {.verdict = RuleVerdict::refused, .failure = failure, .detail = detail};
  }
  // The backends of a part may lead back to this proxy, where the same policy applies.
  static bool is_loop(const Exchange& exchange) {
    return exchange.facts.via &&
           own_via_entries(exchange.request, exchange.plan->plan().this_node().name) >= kOwnViaEntries;
  }

  TransformFault ask(Exchange& exchange, Arena& arena, AggregateCall& call) const {
    call.faults.resize(parts_.size());
    call.judged.resize(parts_.size());
    for (const CompiledPart& part : parts_) {
      if (const TransformFault fault = prepare(part, exchange, arena, call); fault != TransformFault::none) {
        return fault;
      }
    }
    for (size_t i = 0; i < parts_.size(); ++i) {
      parts_[i].counts->asked.add();
      call.calls[i]->begin();
    }
    return TransformFault::none;
  }

  TransformFault prepare(const CompiledPart& part, Exchange& exchange, Arena& arena, AggregateCall& call) const {
    const Plan& plan = exchange.plan->plan();
    RequestHead question;
    question.method = "GET";
    question.authority = exchange.request.authority;
    question.host = exchange.request.host;
    question.path = exchange.request.path;
    question.version = exchange.request.version;
    std::string_view host;
    const TransformFault fault = part.target.change_request(values_of(exchange), question, host, arena);
    if (fault != TransformFault::none) return fault;
    static const FieldEdits kNoEdits;
    auto made = std::make_unique<BackendCall>(
        *exchange.policies.transaction, arena,
        BackendCall::Terms{
            .pool = *plan.pools[part.config.pool],
            .tls = exchange.plan->pool_tls(part.config.pool),
            .edits = kNoEdits,
            .facts = exchange.facts,
            .client = exchange.client_address,
            .priority = exchange.queue_priority(),
            .via_node = exchange.facts.via ? std::string_view(plan.this_node().name) : std::string_view(),
            .request_id = exchange.request_id,
            .timeout_ns = timeout_ns_,
            .host = host,
            .most_body_bytes = most_});
    for (const Field& field : exchange.request.fields) {
      const bool trusted = field.kind == FieldKind::x_forwarded_proto || field.kind == FieldKind::x_forwarded_host;
      const bool named =
          std::find(request_headers_.begin(), request_headers_.end(), field.name) != request_headers_.end();
      // Our own entries in Via show a loop.
      if (trusted || named || field.kind == FieldKind::via) question.fields.add(field);
    }
    made->request() = question;
    call.calls.push_back(std::move(made));
    return TransformFault::none;
  }

  // A part is over. Returns the decision if this ends the request.
  std::optional<RuleDecision> judge(size_t index, Exchange& exchange, Arena& arena, AggregateCall& call) const {
    const CompiledPart& part = parts_[index];
    const BackendCall& done = *call.calls[index];
    const uint16_t status = done.response().status;
    const bool failed = done.failure() != Failure::none;
    if (!failed && part.config.required && passes(part, status) && !done.body_dropped()) {
      part.counts->failed.add();
      const Field* const type = done.response().fields.find("content-type");
      exchange.policies.transaction->answer_buffer().append(done.body());
      return RuleDecision{.verdict = RuleVerdict::answered,
                          .detail = text_of(arena, "{}: status_{}", part.config.name, status),
                          .buffered = true,
                          .status = status,
                          .content_type = type == nullptr ? std::string_view("application/octet-stream") : type->value};
    }
    const char* const fault = failed                         ? info(done.failure()).name
                              : status < 200 || status > 299 ? text_of(arena, "status_{}", status)
                                                             : body_fault(done);
    if (fault == nullptr) return std::nullopt;
    part.counts->failed.add();
    call.faults[index] = fault;
    if (!part.config.required) return std::nullopt;
    return refused(failed ? done.failure() : Failure::bad_response, text_of(arena, "{}: {}", part.config.name, fault));
  }
  static bool passes(const CompiledPart& part, uint16_t status) {
    const std::vector<uint32_t>& statuses = part.config.pass_statuses;
    return std::find(statuses.begin(), statuses.end(), status) != statuses.end();
  }
  // Null if its body can be used. A missing body counts as the JSON value null.
  static const char* body_fault(const BackendCall& done) {
    if (done.body_dropped()) return "body_too_large";
    if (has_content_coding(done.response().fields)) return "body_coded";
    return done.body().empty() || scan_json(done.body()) ? nullptr : "no_json";
  }
  template <class... Values>
  static const char* text_of(Arena& arena, fmt::format_string<Values...> format, Values&&... values) {
    const std::string text = fmt::format(format, std::forward<Values>(values)...);
    return arena.copy({text.c_str(), text.size() + 1}).data();
  }

  void compose(const AggregateCall& call, BodyBuffer& out) const {
    char mark = '{';
    bool partial = false;
    for (size_t i = 0; i < parts_.size(); ++i) {
      out.append({&mark, 1});
      mark = ',';
      out.append(parts_[i].key);
      const std::string_view body = call.calls[i]->body();
      partial = partial || call.faults[i] != nullptr;
      out.append(call.faults[i] != nullptr ? std::string_view(parts_[i].fallback) : body.empty() ? "null" : body);
    }
    if (partial) answers_->partial.add();
    if (partial && !errors_.empty()) compose_errors(call, out);
    out.append("}");
  }
  void compose_errors(const AggregateCall& call, BodyBuffer& out) const {
    out.append(",");
    out.append(errors_);
    bool first = true;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (call.faults[i] == nullptr) continue;
      if (!first) out.append(",");
      first = false;
      out.append(parts_[i].key);
      out.append("\"");
      out.append(call.faults[i]);  // the fault is a token, so it needs no escapes
      out.append("\"");
    }
    out.append("}");
  }

  const uint64_t timeout_ns_;
  const size_t most_;
  const std::string errors_;                  // beginning of the member; empty: failures are not listed
  std::vector<std::string> request_headers_;  // in lower case
  std::vector<CompiledPart> parts_;
  const std::shared_ptr<AggregateAnswers> answers_;
};

}  // namespace

void compile_aggregate(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<AggregateRule>(*policy.part<AggregatePolicy>(kAggregateKind), out));
}

}  // namespace tidegate::l7::policy
