// SPDX-License-Identifier: Apache-2.0
// split (conf/policy/split.h), for those who ask which pool it leads to.
#pragma once

#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

// The pool that the first split of the chain gives such a request, as an index in the Model. kNone: no split holds
// there, or chance decides. `chain` may be null.
uint32_t split_pool_of(const Chain* chain, const Subject& subject);

}  // namespace tidegate::l7::policy
