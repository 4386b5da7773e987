// SPDX-License-Identifier: Apache-2.0
// The keys of mirror: copies of requests go to another pool as well, and nobody gets its answers.
#pragma once

#include <cstdint>

#include "conf/model.h"
#include "conf/policy_model.h"

namespace tidegate {

struct MirrorPolicy final : PolicyPart {
  uint32_t pool = kNone;
  double percent = 100;         // of the requests that reach a backend
  uint64_t most = 64;           // copies under way at one time, of all workers
  uint64_t timeout_ms = 5'000;  // of a copy's whole exchange
};

}  // namespace tidegate
