// SPDX-License-Identifier: Apache-2.0
#include "conf/policy/authorise.h"

#include <fmt/format.h>

#include "conf/field_builders.h"
#include "conf/policy/kind.h"

namespace tidegate {
namespace {

using namespace fields;

const Section& rule_section() {
  static const Section section{
      "rule",
      {
          row("methods", FieldType::method, &AuthoriseRule::methods, "Of requests that it is for. Without it any."),
          row("roles", FieldType::name, &AuthoriseRule::roles,
              "One of them is enough. Without it, everybody who has shown who they are."),
      }};
  return section;
}

const Section& authorise_section() {
  static const Section section{
      "authorise section",
      {
          row("allow", FieldType::cidr, &AuthorisePolicy::allow,
              "Networks whose clients may come. Without it, all that `deny` does not name."),
          row("deny", FieldType::cidr, &AuthorisePolicy::deny,
              "Networks whose clients may not. Of two networks that contain the client the longer one decides; `deny` "
              "wins a tie."),
          nested("rules", &AuthorisePolicy::rules, rule_section(),
                 "What roles may do. The first rule that is for the request's method decides; if there is none, the "
                 "request is refused."),
      }};
  return section;
}

void check_authorise(Checks& checks, size_t p) {
  const AuthorisePolicy& authorise = *checks.model().policies[p].part<AuthorisePolicy>("authorise");
  if (authorise.allow.empty() && authorise.deny.empty() && authorise.rules.empty()) {
    checks.refuse({"policies", p, "authorise"},
                  {"missing_key", "an authorise section that asks for nothing", "allow, deny or rules", {}});
  }
  for (size_t r = 0; r + 1 < authorise.rules.size(); ++r) {
    if (!authorise.rules[r].methods.empty()) continue;
    checks.refuse({"policies", p, "authorise", "rules", r + 1},
                  {"without_effect", "the rule before it is for every method", {}, "put that one last"});
    break;
  }
}

}  // namespace

PolicyKind authorise_policy_kind() {
  return policy_kind<AuthorisePolicy>("authorise", "Who may do what: by network and by role. Others get 403.",
                                      authorise_section(), check_authorise);
}

}  // namespace tidegate
