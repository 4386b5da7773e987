// SPDX-License-Identifier: Apache-2.0
// Convergence: whether the planes of an edge have applied a version, live state or purge, according to /v1/status.
// Pure.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "conf/state_store.h"

namespace tidegate {

struct Convergence {
  bool reached = false;                  // every plane that can be reached has applied it
  bool hopeless = false;                 // a plane has refused it, so waiting does not help
  std::vector<std::string> missing;      // "proxy1/l7: at version 3", "edge/dns: refused version 4: ..."
  std::vector<std::string> unreachable;  // "proxy2: connect: timed out", "l4/l4: ..."
};

// A purge concerns the plane with the cache (l7). Version and live state concern every plane.
Convergence check_convergence(const nlohmann::json& status, const StateHead& wanted);

}  // namespace tidegate
