// SPDX-License-Identifier: Apache-2.0
// What each kind of policy gives: a function that compiles its part of a policy. One line of kinds.def for each.
#pragma once

#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

#define TIDEGATE_POLICY(name) void compile_##name(const Policy& policy, Compiling& out);
#include "conf/policy/kinds.def"
#undef TIDEGATE_POLICY

}  // namespace tidegate::l7::policy
