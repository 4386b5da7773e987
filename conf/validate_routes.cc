// SPDX-License-Identifier: Apache-2.0
// Finds routes that tie: some request would match both, and neither is more specific. Two patterns can tie only if
// their hosts are the same and their paths have the same shape (conf/route_pattern.h). So routes are compared within
// buckets.
#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>

#include "conf/checks.h"
#include "conf/route_pattern.h"
#include "core/http1.h"

namespace tidegate {
namespace {

// An empty list means all.
template <class T>
bool intersect(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.empty() || b.empty()) return true;
  return std::any_of(a.begin(), a.end(), [&](const T& each) { return std::find(b.begin(), b.end(), each) != b.end(); });
}

bool same_name(std::string_view a, std::string_view b) { return a == b; }

// Whether a name that both have asks for different values. No request has both: of a name that stands several times in
// it, the first one counts (l7/exchange/conditions.h).
bool exclude(const RouteConditions::Pairs& a, const RouteConditions::Pairs& b,
             bool (*same)(std::string_view, std::string_view)) {
  return std::any_of(a.begin(), a.end(), [&](const auto& left) {
    return std::any_of(b.begin(), b.end(), [&](const auto& right) {
      return same(left.first, right.first) && left.second != right.second && left.second != "*" && right.second != "*";
    });
  });
}

bool can_meet_both(const RouteConditions& a, const RouteConditions& b) {
  if (exclude(a.headers, b.headers, http1::equals_ignore_case) || exclude(a.query, b.query, same_name) ||
      exclude(a.cookies, b.cookies, same_name)) {
    return false;
  }
  if (a.clients.empty() || b.clients.empty()) return true;
  return std::any_of(a.clients.begin(), a.clients.end(), [&](const Cidr& left) {
    return std::any_of(b.clients.begin(), b.clients.end(), [&](const Cidr& right) { return left.overlaps(right); });
  });
}

bool tie(const Route& a, const Route& b) {
  return intersect(a.listeners, b.listeners) && intersect(a.methods, b.methods) && compare_rank(a, b) == 0 &&
         can_meet_both(a.match, b.match);
}

void refuse_tie(Checks& checks, size_t first, size_t second, const std::string& host) {
  const Route& a = checks.model().routes[first];
  const Route& b = checks.model().routes[second];
  const char* where = checks.written({"routes", second, "path"}) ? "path" : "name";
  checks.refuse({"routes", second, where},
                {"conflicting_routes",
                 fmt::format("routes '{}' and '{}' tie for {}{}", a.name, b.name,
                             host.empty() ? "any host, path " : host, b.path),
                 {},
                 fmt::format("'{}' is {}{}; give them different hosts, paths, methods, listeners or priorities", a.name,
                             a.path, checks.line_of({"routes", first}))});
}

bool comparable(const Checks& checks, size_t r) {
  return checks.sound({"routes", r, "hosts"}) && checks.sound({"routes", r, "path"}) &&
         checks.sound({"routes", r, "methods"}) && checks.sound({"routes", r, "match"}) &&
         checks.sound({"routes", r, "listeners"});
}

}  // namespace

void check_route_conflicts(Checks& checks) {
  std::unordered_map<std::string, std::vector<size_t>> buckets;  // by host and shape
  const std::vector<Route>& routes = checks.model().routes;
  for (size_t r = 0; r < routes.size() && !checks.full(); ++r) {
    const auto path = PathPattern::parse(routes[r].path);
    if (!path || !comparable(checks, r)) continue;
    std::set<size_t> reported;  // routes that share several hosts are reported once
    const std::vector<std::string> any_host = {""};
    for (const std::string& host : routes[r].hosts.empty() ? any_host : routes[r].hosts) {
      std::vector<size_t>& bucket = buckets[host + path->shape()];
      for (const size_t other : bucket) {
        if (other == r || checks.full() || !tie(routes[other], routes[r]) || !reported.insert(other).second) continue;
        refuse_tie(checks, other, r, host);
      }
      bucket.push_back(r);
    }
  }
}

}  // namespace tidegate
