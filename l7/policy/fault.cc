// SPDX-License-Identifier: Apache-2.0
// The fault policy (conf/policy/fault.h): some requests are delayed, and some are refused, on purpose. During the delay
// the step suspends, and the request's own time limits continue to run.
//
// A request without a client (a revalidation) gets no fault.
#include <nlohmann/json.hpp>
#include <random>

#include "conf/model/policy.h"
#include "conf/policy/fault.h"
#include "core/clock.h"
#include "l7/exchange/exchange.h"
#include "l7/policy/kinds.h"
#include "l7/policy/names.h"

namespace tidegate::l7::policy {
namespace {

class FaultRule final : public Rule {
 public:
  FaultRule(const FaultPolicy& fault, Compiling& out)
      : Rule(Stage::fault, out.policy, "fault", out.registry), fault_(fault), header_(lower_case(fault.header)) {}

  RuleDecision on_request(Exchange& exchange, Arena&, Note& note, uint64_t now_ns) const override {
    if (!is_for(exchange.request)) return {RuleVerdict::exempt};
    const bool waited = note.wait_until_ns != 0;
    if (!waited && fault_.delay_ms != 0 && happens(fault_.delay_percent)) {
      return {.wait_until_ns = now_ns + fault_.delay_ms * kNsPerMs};
    }
    if (fault_.abort_status != 0 && happens(fault_.abort_percent)) {
      return {.verdict = RuleVerdict::refused,
              .failure = Failure::fault_injected,
              .detail = "abort",
              .status = fault_.abort_status};
    }
    return {waited ? RuleVerdict::waited : RuleVerdict::passed};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject& subject, uint64_t, nlohmann::json& out) const override {
    // In all other cases chance decides.
    if (!is_for(subject.request)) {
      out["verdict"] = name(RuleVerdict::exempt);
    } else if (fault_.abort_status == 0 || fault_.abort_percent <= 0) {
      out["verdict"] = name(RuleVerdict::passed);
    } else if (fault_.abort_percent >= 100) {
      out["verdict"] = name(RuleVerdict::refused);
    }
    if (fault_.delay_ms != 0) out["delay"] = {{"ms", fault_.delay_ms}, {"percent", fault_.delay_percent}};
    if (fault_.abort_status != 0) {
      out["abort"] = {{"status", fault_.abort_status}, {"percent", fault_.abort_percent}};
    }
  }

 private:
  bool is_for(const RequestHead& request) const { return header_.empty() || request.fields.find(header_) != nullptr; }
  static bool happens(double percent) {
    if (percent >= 100) return true;
    thread_local std::minstd_rand generator{std::random_device{}()};
    return std::uniform_real_distribution<double>(0, 100)(generator) < percent;
  }

  const FaultPolicy fault_;
  const std::string header_;
};

}  // namespace

void compile_fault(const Policy& policy, Compiling& out) {
  out.rules.push_back(std::make_unique<FaultRule>(*policy.part<FaultPolicy>("fault"), out));
}

}  // namespace tidegate::l7::policy
