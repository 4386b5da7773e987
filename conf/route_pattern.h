// SPDX-License-Identifier: Apache-2.0
// Host and path patterns of routes: their grammar, what they match, and which of two is the more specific. Pure: the
// router of l7 and the conflict check of conf decide by these same functions.
//
// Among the routes whose listener, host, path and method all match a request, the winner is the one with
//   1. the more specific host:  exact > longest wildcard > any host (no pattern at all);
//   2. then the more specific path: segment by segment from the left, literal > {parameter} > trailing *.
// Two routes that match a common request and are equal in both are a conflict, refused with the configuration, so the
// winner never depends on the order in which routes were written. A host whose routes all miss falls through to the
// next less specific host.
#pragma once

#include <compare>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/result.h"

namespace tidegate {

// "www.example.com", an address ("192.0.2.1", "[2001:db8::1]"), or "*.example.com" for one or more labels before it.
struct HostPattern {
  enum class Kind : uint8_t { exact, wildcard };
  Kind kind = Kind::exact;
  std::string name;  // lower case, without final dot; of a wildcard what follows "*."

  static Result<HostPattern> parse(std::string_view text);
  // `host`: lower case, without port and final dot.
  bool matches(std::string_view host) const;
  std::string to_string() const;

  bool operator==(const HostPattern&) const = default;
};

// Greater is more specific. Only meaningful between patterns that match a common host; a null pattern is "any host".
std::strong_ordering compare_specificity(const HostPattern* a, const HostPattern* b);

struct PathSegment {
  enum class Kind : uint8_t { rest, parameter, literal };  // in rising specificity
  Kind kind = Kind::literal;
  std::string text;  // literal bytes, or the parameter's name

  bool operator==(const PathSegment&) const = default;
};

// Views into the path that was matched and names of the pattern that matched it.
using PathParameters = std::vector<std::pair<std::string_view, std::string_view>>;

// "/exact", "/a/{id}/b", "/prefix/*". A path is its segments between slashes, so "/static/" has a second, empty one.
// A literal matches its own bytes, a parameter one segment that is not empty, a trailing "*" one or more segments that
// may be empty: "/static/*" matches "/static/" and all below it, but not "/static"; "/*" matches every path. Paths come
// normalised (percent-encoding in upper case and only where needed, dot segments removed; RFC 3986 §6.2.2).
struct PathPattern {
  std::vector<PathSegment> segments;

  static Result<PathPattern> parse(std::string_view text);
  // `path`: starts with "/", no query. Fills `parameters` (cleared first) when it is given and the path matches.
  bool matches(std::string_view path, PathParameters* parameters = nullptr) const;
  // The pattern with its parameters' names left out: two patterns are equally specific and overlap exactly when their
  // shapes are equal.
  std::string shape() const;
  std::string to_string() const;

  bool operator==(const PathPattern&) const = default;
};

// Greater is more specific. A total order by segment kinds from the left; a longer pattern is above its own prefix.
std::strong_ordering compare_specificity(const PathPattern& a, const PathPattern& b);

}  // namespace tidegate
