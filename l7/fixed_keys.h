// SPDX-License-Identifier: Apache-2.0
// The keys of a node that the proxy reads only when it makes its workers and its cache.
#pragma once

#include <string>
#include <vector>

#include "conf/model/node.h"
#include "core/result.h"

namespace tidegate::l7 {

// The names of the keys that differ: "l7.workers", "cache.disk".
std::vector<std::string> differences_fixed_at_start(const Node& then, const Node& now);

// Whether the next start can open the access log and the cache of `node`. Files that the running process (`running`)
// has open are not checked.
Result<void> check_paths(const Node& running, const Node& node, const std::string& state_dir);

}  // namespace tidegate::l7
