// SPDX-License-Identifier: Apache-2.0
// The transform policy (conf/policy/transform.h): a rule that makes Exchange::outgoing of the client's request when a
// backend is asked, and changes the fields of the answer.
//
// The client's request is not changed. The cache's key, the log, the choice of a backend and the rules of the answer
// use it. Variables also come from it, so the order of transforms does not matter for them. A request that cannot be
// transformed ends with not_transformable, and no backend is asked. If an edit of an answer fails, it is left out and
// counted, because the answer is already there.
//
// A request without a client (a revalidation) is transformed like the request that it repeats. `check` ensures that
// only the URL matters there. Runtime: TransformCounts, by policy.
#include <fmt/format.h>

#include <memory>
#include <new>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/model/policy.h"
#include "conf/policy/transform.h"
#include "core/metrics.h"
#include "l7/exchange/exchange.h"
#include "l7/exchange/forwarding.h"
#include "l7/exchange/transaction.h"
#include "l7/policy/json_change.h"
#include "l7/policy/kinds.h"
#include "l7/policy/transformer.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kTransformKind = "transform";

struct TransformCounts final : Runtime {
  std::array<Counter, static_cast<size_t>(TransformFault::count_)> left;  // failed edits of answers
};

class RequestTransformRule final : public Rule {
 public:
  RequestTransformRule(const TransformPolicy& transform, const TransformContent& content,
                       std::shared_ptr<const Transformer> transformer, Compiling& out)
      : Rule(Stage::transform, out.policy, kTransformKind, out.registry), transformer_(std::move(transformer)) {
    if (transform.request_json) request_json_.emplace(*transform.request_json, *content.request_json);
    if (transform.response_json) response_json_.emplace(*transform.response_json, *content.response_json);
  }

  // Asks for the whole body before a backend is asked. The first transform of the chain decides.
  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t) const override {
    const RequestHead& request = exchange.request;
    const bool has_body = request.body != BodyKind::none ||
                          (has_meaning_for_content(request) && request_json_ && request_json_->takes_empty());
    const bool is_for = request_json_ && exchange.request_json == nullptr && has_body && request.upgrade.empty() &&
                        !exchange.grpc && exchange.route != nullptr && takes_body(*request_json_, request.fields);
    if (!is_for) return {RuleVerdict::none};
    if (has_content_coding(request.fields)) {
      return {.verdict = RuleVerdict::refused,
              .failure = Failure::not_transformable,
              .detail = name(JsonFault::body_coded)};
    }
    if (request.body == BodyKind::known && request.content_length > request_json_->most()) {
      return {.verdict = RuleVerdict::refused,
              .failure = Failure::body_too_large,
              .detail = name(JsonFault::body_too_large)};
    }
    exchange.request_json = &*request_json_;
    return {RuleVerdict::none};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  bool forwards() const override { return true; }

  RuleDecision on_forward(Exchange& exchange, Arena& arena) const override {
    const RequestHead& from = exchange.outgoing == nullptr ? exchange.request : *exchange.outgoing;
    auto* const head = new (arena.allocate_aligned(sizeof(RequestHead))) RequestHead(from);
    std::string_view host = exchange.outgoing_host;
    const TransformFault fault = transformer_->change_request(values_of(exchange), *head, host, arena);
    if (fault != TransformFault::none) {
      return {.verdict = RuleVerdict::refused, .failure = Failure::not_transformable, .detail = name(fault)};
    }
    if (response_json_ && exchange.response_json == nullptr && exchange.request.upgrade.empty()) {
      exchange.response_json = &*response_json_;
      // The whole answer is needed, without a coding.
      for (const std::string_view each : {"accept-encoding", "range", "if-range"}) head->fields.remove_named(each);
    }
    exchange.outgoing = head;
    exchange.outgoing_host = host;
    return {};
  }

  // Shows the request that the backend would get. Values that only a real request has (claims, the port) are empty.
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    Arena arena;
    RequestHead head(subject.request);
    std::string_view host;
    const TemplateValues values{.request = subject.request,
                                .parameters = subject.parameters,
                                .client = subject.client,
                                .route = subject.route,
                                .identity = subject.identity};
    const TransformFault fault = transformer_->change_request(values, head, host, arena);
    out["verdict"] = name(fault == TransformFault::none ? RuleVerdict::passed : RuleVerdict::refused);
    if (fault != TransformFault::none) {
      out["detail"] = name(fault);
      return;
    }
    out["target"] = fmt::format("{}{}{}", head.path, head.has_query ? "?" : "", head.query);
    if (!host.empty()) out["host"] = std::string(host);
    if (request_json_) out["request_json"] = true;
    if (response_json_) out["response_json"] = true;
    if (request_json_ && !request_json_->conversion().empty()) out["request_form"] = request_json_->conversion();
    if (response_json_ && !response_json_->conversion().empty()) out["response_form"] = response_json_->conversion();
    out["fields"] = nlohmann::json::object();
    for (const Field& field : head.fields) out["fields"][std::string(field.written_name())] = std::string(field.value);
  }

 private:
  static bool takes_body(const JsonChange& change, const FieldList& fields) {
    const Field* const type = fields.find("content-type");
    return type != nullptr && change.takes(type->value);
  }

  const std::shared_ptr<const Transformer> transformer_;
  std::optional<JsonChange> request_json_, response_json_;
};

class AnswerTransformRule final : public Rule {
 public:
  AnswerTransformRule(std::shared_ptr<const Transformer> transformer, Compiling& out)
      : Rule(Stage::answer, out.policy, kTransformKind, out.registry),
        transformer_(std::move(transformer)),
        transform_counts_(out.registry.get<TransformCounts>(fmt::format("{}/{}/left", out.policy, kTransformKind))) {}

  RuleDecision on_request(Exchange&, Arena&, Note&, uint64_t) const override { return {RuleVerdict::none}; }
  void on_answer(Exchange& exchange, Arena& arena, const Note&) const override {
    TemplateValues values = values_of(exchange);
    values.status = exchange.outcome.status;
    const TransformFault fault = transformer_->change_answer(values, exchange.response.fields, arena);
    if (fault != TransformFault::none) transform_counts_->left[static_cast<size_t>(fault)].add();
  }
  void explain(const Subject&, uint64_t, nlohmann::json& out) const override { out["changes"] = "the answer's fields"; }

  void add_samples(std::vector<Sample>& out) const override {
    for (const TransformFault fault :
         {TransformFault::bad_value, TransformFault::value_too_large, TransformFault::too_many_fields}) {
      out.push_back({"tidegate_l7_transform_left_total", "counter",
                     "Answers of which a policy could not change a field, and why",
                     transform_counts_->left[static_cast<size_t>(fault)].value(), "reason", name(fault)});
    }
  }

 private:
  const std::shared_ptr<const Transformer> transformer_;
  const std::shared_ptr<TransformCounts> transform_counts_;
};

}  // namespace

void compile_transform(const Policy& policy, Compiling& out) {
  const TransformPolicy& part = *policy.part<TransformPolicy>(kTransformKind);
  const TransformContent& content = *out.content.transform;
  const auto transformer = std::make_shared<const Transformer>(part, content);
  if (transformer->changes_requests() || part.request_json || part.response_json) {
    out.rules.push_back(std::make_unique<RequestTransformRule>(part, content, transformer, out));
  }
  if (transformer->changes_answers()) out.rules.push_back(std::make_unique<AnswerTransformRule>(transformer, out));
}

}  // namespace tidegate::l7::policy
