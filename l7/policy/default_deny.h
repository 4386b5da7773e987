// SPDX-License-Identifier: Apache-2.0
// The listener's key `default_deny`: a rule that refuses every request. It is in those chains of such listeners that
// have no other rule that allows requests (Rule::allows).
#pragma once

#include <memory>

#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

std::unique_ptr<Rule> make_default_deny(Registry& registry);

}  // namespace tidegate::l7::policy
