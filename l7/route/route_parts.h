// SPDX-License-Identifier: Apache-2.0
// RouteParts: what one route says about the requests that it takes, in the form of which a Router is made. Whoever
// judges a version before its commit makes the same.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conf/model/route.h"
#include "conf/route_pattern.h"
#include "core/result.h"
#include "l7/route/patterns.h"

namespace tidegate::l7 {

struct RouteParts {
  PathPattern path;
  std::vector<std::string> hosts;                 // patterns in their one form; "": any host
  std::shared_ptr<const RoutePatterns> patterns;  // null: it has no regular expressions
};
// An Error if a pattern cannot be used.
Result<RouteParts> parts_of(const Route& route);

}  // namespace tidegate::l7
