// SPDX-License-Identifier: Apache-2.0
// The keys of mirror: copies of requests also go to another pool, and its answers are thrown away.
#pragma once

#include <cstdint>

#include "conf/model/common.h"
#include "conf/model/policy.h"

namespace tidegate {

struct MirrorPolicy final : PolicyPart {
  uint32_t pool = kNone;
  double percent = 100;         // per cent of the requests that reach a backend
  uint64_t most = 64;           // copies in progress at one time, over all workers
  uint64_t timeout_ms = 5'000;  // time limit of a copy's whole exchange
};

}  // namespace tidegate
