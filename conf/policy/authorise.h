// SPDX-License-Identifier: Apache-2.0
// The keys of authorise: who may do what.
#pragma once

#include <string>
#include <vector>

#include "conf/policy_model.h"
#include "core/ip.h"

namespace tidegate {

struct AuthoriseRule {
  std::vector<std::string> methods;  // empty: any
  std::vector<std::string> roles;    // one of them is enough; empty: everybody who is known
};

struct AuthorisePolicy final : PolicyPart {
  std::vector<Cidr> allow;  // empty: every address
  std::vector<Cidr> deny;
  std::vector<AuthoriseRule> rules;  // the first whose methods have the request's decides; none: refused
};

}  // namespace tidegate
