// SPDX-License-Identifier: Apache-2.0
// The section of a policy: its name, where it holds, and one key for each kind.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "conf/field_builders.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/policy.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/policy/kind.h"

namespace tidegate {

const std::vector<PolicyKind>& policy_kinds() {
  static const std::vector<PolicyKind> kinds = {
#define TIDEGATE_POLICY(name) name##_policy_kind(),
#include "conf/policy/kinds.def"
#undef TIDEGATE_POLICY
  };
  return kinds;
}

std::vector<uint32_t> routes_it_may_hold_for(Checks& checks, size_t p) {
  const Model& model = checks.model();
  const bool for_all =
      model.policies[p].everywhere ||
      std::any_of(model.listeners.begin(), model.listeners.end(), [p](const auto& each) {
        return std::find(each.policies.begin(), each.policies.end(), static_cast<uint32_t>(p)) != each.policies.end();
      });
  if (!for_all) return checks.routes_that_name(p);
  std::vector<uint32_t> all(model.routes.size());
  std::iota(all.begin(), all.end(), 0u);
  return all;
}

const Section& policy_section() {
  static const Section section = [] {
    Section made{"policy",
                 {
                     fields::name(&Policy::name, "What listeners and routes refer to; metrics and logs name it."),
                     fields::boolean("everywhere", &Policy::everywhere,
                                     "It holds for every request, also for those that no route takes. Without it, "
                                     "where a listener or a route names it."),
                 }};
    for (const PolicyKind& kind : policy_kinds()) {
      Field field;
      field.key = kind.key;
      field.type = FieldType::section;
      field.sentence = kind.sentence;
      field.section = kind.section;
      field.enter = [&kind](void* owner, size_t) { return kind.add(*static_cast<Policy*>(owner)); };
      made.fields.push_back(std::move(field));
    }
    return made;
  }();
  return section;
}

void check_policies(Checks& checks) {
  for (size_t p = 0; p < checks.model().policies.size() && !checks.full(); ++p) {
    const Policy& policy = checks.model().policies[p];
    if (policy.parts.empty() && checks.sound({"policies", p})) {
      std::vector<std::string_view> keys;
      for (const PolicyKind& kind : policy_kinds()) keys.push_back(kind.key);
      checks.refuse({"policies", p}, {"missing_key",
                                      fmt::format("policy '{}' does nothing", policy.name),
                                      keys.size() == 1 ? fmt::format("'{}'", keys[0]) : "at least " + one_of(keys),
                                      {}});
    }
    for (const PolicyKind& kind : policy_kinds()) {
      if (policy.parts.count(kind.key) != 0 && checks.sound({"policies", p, kind.key})) kind.check(checks, p);
    }
  }
}

}  // namespace tidegate
