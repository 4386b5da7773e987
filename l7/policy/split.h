// SPDX-License-Identifier: Apache-2.0
// split (conf/policy/split.h): the pool to which it sends a request.
#pragma once

#include "conf/model/common.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

struct SplitChoice {
  uint32_t pool = kNone;    // index in the Model; kNone: no split applies, or chance decides
  std::string_view branch;  // branch for the cache (cache/message.h), stored in the plan; empty: none
};

// The decision of the chain's first split for such a request. `chain` may be null.
SplitChoice split_choice_of(const Chain* chain, const Subject& subject);

}  // namespace tidegate::l7::policy
