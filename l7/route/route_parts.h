// SPDX-License-Identifier: Apache-2.0
// RouteParts: the compiled conditions of one route: path, hosts, regular expressions. A Router is made of them. The
// judge of a version (l7/plan/judge.h) makes the same parts before the commit.
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
