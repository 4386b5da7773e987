// SPDX-License-Identifier: Apache-2.0
// Cross checks of what a route asks of a request besides its host and path (`match`).
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

#include "conf/checks.h"
#include "conf/limits.h"
#include "conf/model.h"
#include "conf/model/route.h"
#include "conf/names.h"
#include "conf/route_checks.h"
#include "conf/route_pattern.h"
#include "conf/text.h"
#include "core/regex.h"

namespace tidegate {
namespace {

enum class Value : uint8_t { text, regex };

// Returns nothing if the text is refused.
std::optional<Regex> check_pattern(Checks& checks, Way way, const std::string& pattern) {
  Result<Regex> regex = Regex::compile(pattern, kRegexMemoryBytes);
  if (regex) return *std::move(regex);
  checks.refuse(way, {"bad_value",
                      fmt::format("{} is no regular expression of RE2: {}", in_quotes(pattern), regex.error().message),
                      {},
                      {}});
  return std::nullopt;
}

// `lower`: case does not matter in names.
void check_pairs(Checks& checks, size_t r, std::string_view key, const RouteConditions::Pairs& pairs, Value kind,
                 bool lower) {
  std::map<std::string, std::string_view> met;
  for (const auto& [name, value] : pairs) {
    const Way way = {"routes", r, "match", key, std::string_view(name)};
    if (value.empty()) {
      checks.refuse(way, {"bad_value",
                          fmt::format("{} has no value", in_quotes(name)),
                          kind == Value::regex ? "a regular expression" : "a value, or '*' for any",
                          {}});
    } else if (const auto [other, first] = met.emplace(lower ? lower_case(name) : name, name); !first) {
      checks.refuse(way, {"duplicate_name",
                          fmt::format("{} and {} are one field", in_quotes(other->second), in_quotes(name)),
                          {},
                          {}});
    } else if (kind == Value::regex) {
      check_pattern(checks, way, value);
    }
  }
}

void check_header_names(Checks& checks, size_t r, std::string_view key, const RouteConditions::Pairs& pairs) {
  for (const auto& [name, value] : pairs) {
    const bool host = lower_case(name) == "host";
    if (!is_framing_field(field_name_as_read(name)) && !host) continue;
    checks.refuse({"routes", r, "match", key, std::string_view(name)},
                  {"bad_value", fmt::format("{} is not looked at here", in_quotes(name)),
                   "a field of the message's content", host ? "the key 'hosts'" : ""});
  }
}

// A pattern that has only literals matches one path.
bool is_one_path(const PathPattern& pattern) {
  return std::all_of(pattern.segments.begin(), pattern.segments.end(),
                     [](const PathSegment& segment) { return segment.kind == PathSegment::Kind::literal; });
}

void check_path_regex(Checks& checks, size_t r, const Route& route) {
  if (route.match.path_regex.empty()) return;
  const Way way = {"routes", r, "match", "path_regex"};
  const std::optional<Regex> regex = check_pattern(checks, way, route.match.path_regex);
  if (!regex || !checks.sound({"routes", r, "path"})) return;
  const Result<PathPattern> pattern = PathPattern::parse(route.path);
  if (!pattern || !is_one_path(*pattern)) return;
  checks.refuse(way, {"without_effect",
                      fmt::format("{} {} the only path that the route takes, {}", in_quotes(route.match.path_regex),
                                  regex->takes_whole(route.path) ? "takes" : "does not take", route.path),
                      {},
                      "a path with {parameters} or a trailing *, for example /*"});
}

// Refuses conditions that a cache would ignore: it would serve the answer to requests that do not meet them.
void check_cached(Checks& checks, size_t r, const Route& route) {
  if (!route.cache.enabled) return;
  const RouteConditions& match = route.match;
  const std::vector<std::string>& in_key = route.cache.key_query;
  const auto is_in_key = [&](const auto& pair) {
    return !route.cache.ignore_query &&
           (in_key.empty() || std::find(in_key.begin(), in_key.end(), pair.first) != in_key.end());
  };
  const bool query_in_key = std::all_of(match.query.begin(), match.query.end(), is_in_key) &&
                            std::all_of(match.query_regex.begin(), match.query_regex.end(), is_in_key);
  if (query_in_key && match.headers.empty() && match.headers_regex.empty() && match.cookies.empty() &&
      match.clients.empty()) {
    return;
  }
  checks.refuse({"routes", r, "cache"},
                {"conflicting_keys",
                 fmt::format("route '{}' depends on more than the cache's key has: its answers would be given to "
                             "requests of other routes",
                             route.name),
                 {},
                 query_in_key ? "remove the cache, or the headers, cookies and clients of match"
                              : "the parameters of match in key_query"});
}

}  // namespace

void check_route_conditions(Checks& checks, size_t r) {
  const Route& route = checks.model().routes[r];
  const RouteConditions& match = route.match;
  if (match.empty()) return;
  check_pairs(checks, r, "headers", match.headers, Value::text, true);
  check_pairs(checks, r, "query", match.query, Value::text, false);
  check_pairs(checks, r, "cookies", match.cookies, Value::text, false);
  check_pairs(checks, r, "headers_regex", match.headers_regex, Value::regex, true);
  check_pairs(checks, r, "query_regex", match.query_regex, Value::regex, false);
  check_header_names(checks, r, "headers", match.headers);
  check_header_names(checks, r, "headers_regex", match.headers_regex);
  check_path_regex(checks, r, route);
  check_cached(checks, r, route);
}

}  // namespace tidegate
