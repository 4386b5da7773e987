// SPDX-License-Identifier: Apache-2.0
// The check of the key `by`, which limits and concurrency have.
#pragma once

#include <string>
#include <vector>

#include "conf/checks.h"

namespace tidegate {

// `p`: the index of the policy; `kind`: the key of its part.
void check_limit_by(Checks& checks, size_t p, const char* kind, const std::vector<std::string>& by);

}  // namespace tidegate
