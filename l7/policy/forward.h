// SPDX-License-Identifier: Apache-2.0
// authenticate: forward (conf/policy/authenticate.h).
#pragma once

#include "conf/policy/authenticate.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

std::unique_ptr<Rule> make_forward_rule(const AuthenticatePolicy& authenticate, Compiling& out);

}  // namespace tidegate::l7::policy
