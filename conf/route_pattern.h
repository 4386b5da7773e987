// SPDX-License-Identifier: Apache-2.0
// Host and path patterns of routes: their grammar, what they match, and which of two is more specific. Pure: the router
// of l7 and the conflict check of conf use the same functions.
//
// If the listener, host, path and method of several routes match a request, the winner is the route with
//    1. the more specific host:  exact > longest wildcard > any host (no pattern at all);
//    2. then the more specific path: segment by segment from the left, literal > {parameter} > end > trailing *.
// Of routes that are equal in both, the one with the higher priority wins, then the one with more conditions.
// Two routes that match a common request and are equal in all of this are a conflict, and the configuration is refused.
// So the winner never depends on the order of the routes. If no route of a host matches, the routes of the next less
// specific host are tried.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tidegate {

// "www.example.com", an address ("192.0.2.1", "[2001:db8::1]"), or "*.example.com" for one or more additional labels.
struct HostPattern {
  enum class Kind : uint8_t { exact, wildcard };
  Kind kind = Kind::exact;
  std::string name;  // lower case, without the final dot; for a wildcard: what follows "*."

  static Result<HostPattern> parse(std::string_view text);
  // `host` must be lower case, without port and final dot.
  bool matches(std::string_view host) const;
  std::string to_string() const;

  bool operator==(const HostPattern&) const = default;
};

// Greater means more specific. Only meaningful for patterns that match a common host. A null pattern is "any host".
std::strong_ordering compare_specificity(const HostPattern* a, const HostPattern* b);

struct PathSegment {
  enum class Kind : uint8_t { rest, parameter, literal };  // in the order of rising specificity
  Kind kind = Kind::literal;
  std::string text;  // literal bytes, or the name of the parameter

  bool operator==(const PathSegment&) const = default;
};

// Names in the pattern that matched, and views into the path that it matched.
using PathParameters = std::vector<std::pair<std::string_view, std::string_view>>;

// "/exact", "/a/{id}/b", "/prefix/*". The segments of a path are between its slashes, so "/static/" has a second, empty
// segment. A literal matches its own bytes. A parameter matches one segment that is not empty. A trailing "*" matches
// any number of segments, which may be empty: "/static/*" matches "/static", "/static/" and everything below it; "/*"
// matches every path. Paths must be normalised (percent-encoding in upper case and only where needed, dot segments
// removed; RFC 3986 §6.2.2).
struct PathPattern {
  std::vector<PathSegment> segments;

  static Result<PathPattern> parse(std::string_view text);
  // `path` begins with "/" and has no query. If `parameters` is given, it is cleared, and filled if the path matches.
  bool matches(std::string_view path, PathParameters* parameters = nullptr) const;
  // The pattern without the names of its parameters. Two patterns overlap with equal specificity exactly when their
  // shapes are equal.
  std::string shape() const;
  std::string to_string() const;

  bool operator==(const PathPattern&) const = default;
};

// The part of a path that the final "/*" of its pattern matches: "/b/c" of "/a/b/c" for "/a/*". The part begins with
// one slash, or is empty (path "/a"). It is also empty if the pattern has no "*".
std::string_view rest_of_path(std::string_view path, std::string_view pattern);

// Greater means more specific. A total order by the kinds of segments from the left. A longer pattern is above its own
// prefix, except for a trailing "*": "/a" is above "/a/*".
std::strong_ordering compare_specificity(const PathPattern& a, const PathPattern& b);

struct Route;
// Greater wins, of two routes with the same host and path: first by priority, then by the number of conditions.
std::strong_ordering compare_rank(const Route& a, const Route& b);

}  // namespace tidegate
