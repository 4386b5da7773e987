// SPDX-License-Identifier: Apache-2.0
// Checks lists of words by which requests are told apart: `by` of limits and concurrency, `sticky` of splits.
#pragma once

#include <string>
#include <vector>

#include "conf/checks.h"

namespace tidegate {

// `p`: the index of the policy; `kind`: the key of its part; `key`: of the list in it.
void check_limit_by(Checks& checks, size_t p, const char* kind, const std::vector<std::string>& by,
                    const char* key = "by");

}  // namespace tidegate
