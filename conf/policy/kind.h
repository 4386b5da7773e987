// SPDX-License-Identifier: Apache-2.0
// PolicyKind: the description of one kind of policy for the configuration. Each file of conf/policy defines one.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "conf/checks.h"
#include "conf/fields.h"
#include "conf/model/policy.h"

namespace tidegate {

struct PolicyKind {
  std::string_view key;  // the key in a policy, for example "limit"
  std::string_view sentence;
  const Section* section = nullptr;
  // Puts a fresh part into the policy. Returns the struct that the section describes.
  std::function<void*(Policy&)> add;
  // Checks how the part's keys relate to each other. `p` is the index of the policy. Called only for parts without a
  // fault.
  std::function<void(Checks&, size_t p)> check;
  // The pools that the part uses; ignore kNone among them. Empty: parts of this kind use no pools.
  std::function<std::vector<uint32_t>(const Policy&)> pools_of;
};

template <class Part>
PolicyKind policy_kind(std::string_view key, std::string_view sentence, const Section& section,
                       std::function<void(Checks&, size_t)> check) {
  const auto add = [key](Policy& policy) -> void* {
    auto part = std::make_shared<Part>();
    Part* const keys = part.get();
    policy.parts[key] = std::move(part);
    return keys;
  };
  return {key, sentence, &section, add, std::move(check), {}};
}

#define TIDEGATE_POLICY(name) PolicyKind name##_policy_kind();
#include "conf/policy/kinds.def"
#undef TIDEGATE_POLICY

const std::vector<PolicyKind>& policy_kinds();
// The indices of the routes for whose requests the policy may hold, in order. These are all routes if the policy holds
// everywhere or a listener names it. Otherwise they are the routes that name it.
std::vector<uint32_t> routes_it_may_hold_for(Checks& checks, size_t p);
void check_policies(Checks& checks);

}  // namespace tidegate
