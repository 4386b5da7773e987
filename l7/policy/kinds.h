// SPDX-License-Identifier: Apache-2.0
// The functions that compile each kind of policy part, one for each line of kinds.def.
#pragma once

#include "conf/model/policy.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

#define TIDEGATE_POLICY(name) void compile_##name(const Policy& policy, Compiling& out);
#include "conf/policy/kinds.def"
#undef TIDEGATE_POLICY

}  // namespace tidegate::l7::policy
