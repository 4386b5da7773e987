// SPDX-License-Identifier: Apache-2.0
// Finds routes that tie: some request would match both, and neither is more specific. Two patterns can tie only if
// their hosts are the same and their paths have the same shape (conf/route_pattern.h). So routes are compared within
// buckets. If only few have changed since there was no conflict, each of them is compared with all others, without
// buckets. If this finds a possible conflict, all routes are compared as usual. So the text of a fault is always the
// same.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>

#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/route.h"
#include "conf/route_pattern.h"
#include "core/http1.h"
#include "core/regex.h"

namespace tidegate {
namespace {

// An empty list means all.
template <class T>
bool intersect(const std::vector<T>& a, const std::vector<T>& b) {
  if (a.empty() || b.empty()) return true;
  return std::any_of(a.begin(), a.end(), [&](const T& each) { return std::find(b.begin(), b.end(), each) != b.end(); });
}

bool same_name(std::string_view a, std::string_view b) { return a == b; }

// True if both have a name with different values. Then no request meets both: if a request has a name several times,
// only the first one counts (l7/exchange/conditions.h).
bool exclude(const RouteConditions::Pairs& a, const RouteConditions::Pairs& b,
             bool (*same)(std::string_view, std::string_view)) {
  return std::any_of(a.begin(), a.end(), [&](const auto& left) {
    return std::any_of(b.begin(), b.end(), [&](const auto& right) {
      return same(left.first, right.first) && left.second != right.second && left.second != "*" && right.second != "*";
    });
  });
}

bool apart(const std::optional<Regex::Bounds>& a, const std::optional<Regex::Bounds>& b) {
  return a && b && (a->second < b->first || b->second < a->first);
}

// The regular expressions of a route, and the bounds of what they match.
class Patterns {
 public:
  explicit Patterns(const RouteConditions& match) {
    if (!match.path_regex.empty()) path_ = Regex::bounds_of(match.path_regex, kRegexMemoryBytes);
    add(match.headers_regex, headers_);
    add(match.query_regex, query_);
  }
  // True if no request can meet both: their expressions match no common text.
  bool exclude(const Patterns& other) const {
    return apart(path_, other.path_) || exclude(headers_, other.headers_, http1::equals_ignore_case) ||
           exclude(query_, other.query_, same_name);
  }
  // True if these expressions exclude the exact values that another route asks for.
  bool exclude(const RouteConditions& other) const {
    return exclude(headers_, other.headers, http1::equals_ignore_case) || exclude(query_, other.query, same_name);
  }

 private:
  struct Pattern {
    std::string_view name;
    Regex regex;
    std::optional<Regex::Bounds> bounds;
  };
  using Same = bool (*)(std::string_view, std::string_view);
  static void add(const RouteConditions::Pairs& pairs, std::vector<Pattern>& out) {
    for (const auto& [name, pattern] : pairs) {
      Result<Regex> regex = Regex::shared(pattern, kRegexMemoryBytes);
      if (regex) out.push_back({name, *std::move(regex), Regex::bounds_of(pattern, kRegexMemoryBytes)});
    }
  }
  static bool exclude(const std::vector<Pattern>& a, const std::vector<Pattern>& b, Same same) {
    return std::any_of(a.begin(), a.end(), [&](const Pattern& left) {
      return std::any_of(b.begin(), b.end(), [&](const Pattern& right) {
        return same(left.name, right.name) && apart(left.bounds, right.bounds);
      });
    });
  }
  static bool exclude(const std::vector<Pattern>& a, const RouteConditions::Pairs& b, Same same) {
    return std::any_of(a.begin(), a.end(), [&](const Pattern& left) {
      return std::any_of(b.begin(), b.end(), [&](const auto& right) {
        return same(left.name, right.first) && right.second != "*" && !left.regex.takes_whole(right.second);
      });
    });
  }

  std::optional<Regex::Bounds> path_;
  std::vector<Pattern> headers_, query_;
};

// The patterns of the routes that have any. They are made when they are first needed.
class PatternsOfRoutes {
 public:
  bool exclude(const Elements<Route>& routes, size_t a, size_t b) {
    const Patterns* const left = of(routes, a);
    const Patterns* const right = of(routes, b);
    if (left != nullptr && right != nullptr && left->exclude(*right)) return true;
    return (left != nullptr && left->exclude(routes[b].match)) || (right != nullptr && right->exclude(routes[a].match));
  }

 private:
  const Patterns* of(const Elements<Route>& routes, size_t route) {
    if (!routes[route].match.has_regex()) return nullptr;
    std::unique_ptr<Patterns>& entry = known_[route];
    if (entry == nullptr) entry = std::make_unique<Patterns>(routes[route].match);
    return entry.get();
  }
  std::unordered_map<size_t, std::unique_ptr<Patterns>> known_;
};

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

// Refuses too many expressions: a request tries all expressions of one host and path, one after another.
void refuse_many(Checks& checks, size_t route, const std::string& host) {
  checks.refuse(
      {"routes", route, "match"},
      {"out_of_range",
       fmt::format("{} {} has more than {} routes with regular expressions", host.empty() ? "any host, path" : host,
                   checks.model().routes[route].path, kMaxRegexRoutes),
       fmt::format("at most {}", kMaxRegexRoutes), "give them different paths or hosts"});
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

bool share_a_host(const Route& a, const Route& b) {
  if (a.hosts.empty() || b.hosts.empty()) return a.hosts.empty() && b.hosts.empty();
  return intersect(a.hosts, b.hosts);
}

// True if both patterns have the same shape. Most pairs differ before the first parameter, so they need no parsing: up
// to the first parameter a pattern is its own shape.
bool same_shape(std::string_view a, std::string_view b) {
  const size_t parameter = a.find('{');
  if (parameter != b.find('{') || a.substr(0, parameter) != b.substr(0, parameter)) return false;
  if (parameter == std::string_view::npos) return true;
  const auto left = PathPattern::parse(a), right = PathPattern::parse(b);
  return left && right && left->shape() == right->shape();
}

// The routes that differ from those in `before`. Nothing if they are many, or if the lists cannot be compared.
std::optional<std::vector<size_t>> few_changed(const Elements<Route>& before, const Elements<Route>& now) {
  constexpr size_t kFew = 16;  // each is compared with all others
  if (before.size() != now.size()) return std::nullopt;
  std::vector<size_t> changed;
  for (size_t r = 0; r < now.size(); ++r) {
    if (now.shares(r, before)) continue;
    if (changed.size() == kFew) return std::nullopt;
    changed.push_back(r);
  }
  return changed;
}

// Whether a route has no conflict with any other.
bool stands_alone(const Checks& checks, size_t r, PatternsOfRoutes& patterns) {
  const Elements<Route>& routes = checks.model().routes;
  const Route& route = routes[r];
  if (!comparable(checks, r)) return false;
  size_t with_regex = 0;
  for (size_t other = 0; other < routes.size(); ++other) {
    if (other == r || !share_a_host(routes[other], route) || !same_shape(routes[other].path, route.path)) continue;
    if (routes[other].match.has_regex()) ++with_regex;
    if (route.match.has_regex() && with_regex >= kMaxRegexRoutes) return false;  // maybe: of several hosts
    if (tie(routes[other], route) && !patterns.exclude(routes, other, r)) return false;
  }
  return true;
}

// True if it is certain that no routes conflict: `before` had no conflict, and the routes that changed since have none.
bool still_without_conflicts(const Checks& checks, const Model& before) {
  const auto changed = few_changed(before.routes, checks.model().routes);
  PatternsOfRoutes patterns;
  return changed &&
         std::all_of(changed->begin(), changed->end(), [&](size_t r) { return stands_alone(checks, r, patterns); });
}

}  // namespace

void check_route_conflicts(Checks& checks, const Model* before) {
  if (before != nullptr && still_without_conflicts(checks, *before)) return;
  struct Bucket {
    std::vector<size_t> routes;
    size_t with_regex = 0;
  };
  std::unordered_map<std::string, Bucket> buckets;  // by host and shape
  buckets.reserve(checks.model().routes.size());
  PatternsOfRoutes patterns;
  const Elements<Route>& routes = checks.model().routes;
  const std::vector<std::string> any_host = {""};
  std::string key;
  for (size_t r = 0; r < routes.size() && !checks.full(); ++r) {
    const auto path = PathPattern::parse(routes[r].path);
    if (!path || !comparable(checks, r)) continue;
    std::set<size_t> reported;  // routes that share several hosts are reported once
    const std::string shape = path->shape();
    for (const std::string& host : routes[r].hosts.empty() ? any_host : routes[r].hosts) {
      key.assign(host).append(shape);
      Bucket& bucket = buckets[key];
      if (routes[r].match.has_regex() && ++bucket.with_regex > kMaxRegexRoutes) {
        if (bucket.with_regex == kMaxRegexRoutes + 1) refuse_many(checks, r, host);
        continue;
      }
      for (const size_t other : bucket.routes) {
        if (other == r || checks.full() || !tie(routes[other], routes[r]) || patterns.exclude(routes, other, r))
          continue;
        if (reported.insert(other).second) refuse_tie(checks, other, r, host);
      }
      bucket.routes.push_back(r);
    }
  }
}

}  // namespace tidegate
