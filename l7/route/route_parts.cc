// SPDX-License-Identifier: Apache-2.0
#include "l7/route/route_parts.h"

namespace tidegate::l7 {

Result<RouteParts> parts_of(const Route& route) {
  Result<PathPattern> path = PathPattern::parse(route.path);
  if (!path) return path.error();
  RouteParts parts{*std::move(path), {}, nullptr};
  for (const std::string& text : route.hosts) {
    const Result<HostPattern> host = HostPattern::parse(text);
    if (!host) return host.error();
    parts.hosts.push_back(host->to_string());
  }
  if (route.hosts.empty()) parts.hosts.emplace_back();
  Result<std::shared_ptr<const RoutePatterns>> patterns = RoutePatterns::of(route.match);
  if (!patterns) return patterns.error();
  parts.patterns = *std::move(patterns);
  return parts;
}

}  // namespace tidegate::l7
