// SPDX-License-Identifier: Apache-2.0
#include "control/api/route_table.h"

#include <algorithm>
#include "core/percent.h"

#include "core/assert.h"

namespace tidegate {

bool ApiCall::flag(std::string_view parameter) const { return request().parameter(parameter) == "true"; }

bool match_pattern(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& bound) {
  bound.clear();
  const auto take_segment = [](std::string_view& rest) {
    const size_t end = std::min(rest.find('/'), rest.size());
    const std::string_view segment = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return segment;
  };
  if (std::count(pattern.begin(), pattern.end(), '/') != std::count(path.begin(), path.end(), '/')) return false;
  while (!pattern.empty() || !path.empty()) {
    const std::string_view want = take_segment(pattern);
    const std::string_view have = take_segment(path);
    if (want.size() > 2 && want.front() == '{' && want.back() == '}') {
      std::optional<std::string> value = percent_decode(have, false);
      if (!value || value->empty()) return false;
      bound[std::string(want.substr(1, want.size() - 2))] = std::move(*value);
    } else if (want != have) {
      return false;
    }
  }
  return true;
}

void RouteTable::add(ApiRoute route) {
  TIDEGATE_ASSERT(route.pattern.starts_with('/') && route.handler, "a route has a path and a handler");
  routes_.push_back(std::move(route));
}

RouteTable::Found RouteTable::find(std::string_view method, std::string_view path) const {
  Found found;
  for (const ApiRoute& route : routes_) {
    std::map<std::string, std::string> bound;
    if (!match_pattern(route.pattern, path, bound)) continue;
    if (route.method == method || (method == "HEAD" && route.method == "GET")) {
      found.route = &route;
      found.path = std::move(bound);
      return found;
    }
    if (found.allow.find(route.method) == std::string::npos) {
      found.allow += (found.allow.empty() ? "" : ", ") + route.method;
    }
  }
  return found;
}

}  // namespace tidegate
