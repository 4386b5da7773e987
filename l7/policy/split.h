// SPDX-License-Identifier: Apache-2.0
// split (conf/policy/split.h), for those who ask where it leads.
#pragma once

#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

struct SplitChoice {
  uint32_t pool = kNone;    // as an index in the Model; kNone: no split holds there, or chance decides
  std::string_view branch;  // of the cache (cache/message.h), as the plan keeps it; empty: none
};

// What the first split of the chain gives such a request. `chain` may be null.
SplitChoice split_choice_of(const Chain* chain, const Subject& subject);

}  // namespace tidegate::l7::policy
