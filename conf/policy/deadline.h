// SPDX-License-Identifier: Apache-2.0
// The keys of deadline: a field of the request that tells how much time its client still has.
#pragma once

#include <cstdint>
#include <string>

#include "conf/model/policy.h"

namespace tidegate {

enum class DeadlineUnit : uint8_t { ms, s };

struct DeadlinePolicy final : PolicyPart {
  std::string header;
  DeadlineUnit unit = DeadlineUnit::ms;
  uint64_t default_ms = 0;  // for a request that does not say it; 0: no deadline
  uint64_t most_ms = 0;     // a larger value counts as this; 0: no bound
};

}  // namespace tidegate
