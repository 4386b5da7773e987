// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/default_deny.h"

#include <nlohmann/json.hpp>

namespace tidegate::l7::policy {
namespace {

class DefaultDenyRule final : public Rule {
 public:
  explicit DefaultDenyRule(Registry& registry) : Rule(Stage::authorise, "listener", "default_deny", registry) {}

  RuleDecision on_request(Exchange&, Arena&, Note&, uint64_t) const override {
    return {.verdict = RuleVerdict::refused, .failure = Failure::denied_by_default};
  }
  void on_answer(Exchange&, Arena&, const Note&) const override {}
  void explain(const Subject&, uint64_t, nlohmann::json& out) const override {
    out["verdict"] = name(RuleVerdict::refused);
    out["because_of"] = "no authorise policy allows requests of this route";
  }
};

}  // namespace

std::unique_ptr<Rule> make_default_deny(Registry& registry) { return std::make_unique<DefaultDenyRule>(registry); }

}  // namespace tidegate::l7::policy
