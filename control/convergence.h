// SPDX-License-Identifier: Apache-2.0
// Convergence: whether the planes of an edge, as /v1/status describes it, have applied what was asked. Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "conf/state_store.h"

namespace tidegate {

struct Convergence {
  bool reached = false;                  // every plane that can be reached has applied it
  bool hopeless = false;                 // what is missing was refused, not merely late
  std::vector<std::string> missing;      // "proxy1/l7: at version 3", "edge/dns: refused version 4: ..."
  std::vector<std::string> unreachable;  // "proxy2: connect: timed out", "l4/l4: ..."
};

// A purge concerns the plane that holds the cache (l7); version and words concern every plane.
Convergence judge_convergence(const nlohmann::json& status, const StateHead& wanted);

}  // namespace tidegate
