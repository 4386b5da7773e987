// SPDX-License-Identifier: Apache-2.0
// The keys of fault: delays and aborts on purpose, to test how clients handle them.
#pragma once

#include <cstdint>
#include <string>

#include "conf/model/policy.h"

namespace tidegate {

struct FaultPolicy final : PolicyPart {
  uint64_t delay_ms = 0;  // 0: none
  double delay_percent = 100;
  uint16_t abort_status = 0;  // 0: none
  double abort_percent = 100;
  std::string header;  // only requests with this field; empty: all requests
};

}  // namespace tidegate
