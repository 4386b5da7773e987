// SPDX-License-Identifier: Apache-2.0
// The deadline policy (conf/policy/deadline.h). On the request: the time that the client gives becomes the exchange's
// own (Timing::call_deadline_ns), like grpc-timeout. When it is over, the request ends with deadline_exceeded, and no
// backend is charged. The backend gets the same field with the time that is left when the request is sent.
//
// The time begins with the request's head. A malformed number is ignored: the field is not passed on, and the request
// is counted. A fetch for the cache sends its backend no time, because it is not only for this client.
//
// A request without a client (a revalidation) has no deadline, and does not pass on the original client's field.
// Runtime: a count of malformed fields, by policy.
#include "l7/policy/deadline.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/model/policy.h"
#include "conf/policy/deadline.h"
#include "core/clock.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/kinds.h"
#include "l7/policy/names.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {
namespace {

constexpr const char* kDeadlineKind = "deadline";
constexpr uint64_t kLongestNs = uint64_t{30} * 86'400 * kNsPerS;  // a longer deadline has no meaning

class DeadlineRule final : public Rule {
 public:
  DeadlineRule(const DeadlinePolicy& deadline, Compiling& out)
      : Rule(Stage::deadline, out.policy, kDeadlineKind, out.registry),
        terms_{deadline.header, lower_case(deadline.header), deadline.unit == DeadlineUnit::ms ? kNsPerMs : kNsPerS},
        default_ns_(deadline.default_ms * kNsPerMs),
        most_ns_(deadline.most_ms == 0 ? kLongestNs : deadline.most_ms * kNsPerMs),
        runtime_(out.registry.get<Malformed>(fmt::format("{}/{}/malformed", out.policy, kDeadlineKind))) {}

  RuleDecision on_request(Exchange& exchange, Arena&, Note&, uint64_t now_ns) const override {
    if (exchange.deadline == nullptr) exchange.deadline = &terms_;
    remove_other_spellings(exchange.request.fields, terms_.lower_field);  // the field itself is written again
    bool malformed = false;
    const std::optional<uint64_t> time_ns = time_of(exchange.request, malformed);
    if (malformed) runtime_->count.add();
    if (!time_ns) return {RuleVerdict::exempt};
    Timing& timing = exchange.timing;
    timing.call_deadline_ns = std::min(timing.call_deadline_ns, timing.started_ns + *time_ns);
    if (timing.call_deadline_ns > now_ns) return {};
    return {.verdict = RuleVerdict::refused, .failure = Failure::deadline_exceeded, .detail = "deadline_over"};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}

  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    out["header"] = terms_.field;
    bool malformed = false;
    const std::optional<uint64_t> time_ns = time_of(subject.request, malformed);
    out["verdict"] = name(!time_ns ? RuleVerdict::exempt : *time_ns == 0 ? RuleVerdict::refused : RuleVerdict::passed);
    if (time_ns) out["time_ms"] = *time_ns / kNsPerMs;
    if (malformed) out["malformed"] = true;
  }

  void add_samples(std::vector<Sample>& out) const override {
    out.push_back({"tidegate_l7_deadline_malformed_total", "counter",
                   "Requests whose deadline is no number, or stands twice: they have that of `default`",
                   runtime_->count.value()});
  }

 private:
  struct Malformed final : Runtime {
    Counter count;
  };
  // The client's time, or the default.
  std::optional<uint64_t> time_of(const RequestHead& request, bool& malformed) const {
    std::optional<uint64_t> said;
    size_t fields = 0;
    for (const Field& field : request.fields) {
      if (field.name != terms_.lower_field) continue;
      ++fields;
      said = read(field.value);
    }
    malformed = fields > 1 || (fields == 1 && !said);
    if (fields == 1 && said) return std::min(*said, most_ns_);
    if (default_ns_ == 0) return std::nullopt;
    return default_ns_;
  }
  // Only digits. A number that is too large for the type counts as a very long time.
  std::optional<uint64_t> read(std::string_view text) const {
    if (text.empty() || text.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
    uint64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc()) return kLongestNs;
    return std::min(number, kLongestNs / terms_.unit_ns) * terms_.unit_ns;
  }

  const DeadlineTerms terms_;
  const uint64_t default_ns_, most_ns_;
  const std::shared_ptr<Malformed> runtime_;
};

}  // namespace

void compile_deadline(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<DeadlineRule>(*policy.part<DeadlinePolicy>(kDeadlineKind), out));
}

}  // namespace tidegate::l7::policy
