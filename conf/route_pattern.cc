// SPDX-License-Identifier: Apache-2.0
#include "conf/route_pattern.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/route.h"
#include "conf/text.h"
#include "core/ip.h"

namespace tidegate {
namespace {

constexpr size_t kMaxHostBytes = 253;  // RFC 1035 §2.3.4, as text without the final dot
constexpr size_t kMaxLabelBytes = 63;
constexpr size_t kMaxPathBytes = 1024;  // far more than people write; keeps the matching of a request short

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_alnum(char c) { return is_lower(c) || (c >= 'A' && c <= 'Z') || is_digit(c); }
bool is_upper_hex(char c) { return is_digit(c) || (c >= 'A' && c <= 'F'); }

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool is_label(std::string_view label) {
  if (label.empty() || label.size() > kMaxLabelBytes || label.front() == '-' || label.back() == '-') return false;
  return std::all_of(label.begin(), label.end(), [](char c) { return is_alnum(c) || c == '-' || c == '_'; });
}

bool is_host_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxHostBytes) return false;
  for (size_t start = 0;;) {
    const size_t dot = name.find('.', start);
    if (!is_label(name.substr(start, dot == std::string_view::npos ? dot : dot - start))) return false;
    if (dot == std::string_view::npos) return true;
    start = dot + 1;
  }
}

// pchar of RFC 3986 §3.3 without percent-encoding.
bool is_path_char(char c) {
  return is_alnum(c) || std::string_view("-._~!$&'()+,;=:@").find(c) != std::string_view::npos;
}

Result<PathSegment> parse_literal(std::string_view text) {
  const std::string_view name = text.substr(0, text.find(';'));  // types with parameters are refused
  if (name == "." || name == "..") return fail("dot segments never reach a route: paths are normalised first");
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      if (i + 2 >= text.size() || !is_upper_hex(text[i + 1]) || !is_upper_hex(text[i + 2])) {
        return fail("'%' needs two hexadecimal digits in upper case after it");
      }
      i += 2;
    } else if (text[i] == '*') {
      return fail("'*' stands only alone, as the last segment");
    } else if (text[i] == '{' || text[i] == '}') {
      return fail("a parameter is a whole segment: '/{name}'");
    } else if (!is_path_char(text[i])) {
      return fail(static_cast<unsigned char>(text[i]) > 0x20 && static_cast<unsigned char>(text[i]) < 0x7f
                      ? fmt::format("'{}' cannot stand in a path; percent-encode it", text[i])
                      : std::string("a path is printable ASCII; percent-encode the rest"));
    }
  }
  return PathSegment{PathSegment::Kind::literal, std::string(text)};
}

Result<PathSegment> parse_parameter(std::string_view name) {
  const bool good = !name.empty() && is_lower(name.front()) && std::all_of(name.begin(), name.end(), [](char c) {
    return is_lower(c) || is_digit(c) || c == '_';
  });
  if (!good) return fail("a parameter's name is made of a-z, 0-9 and _, and begins with a letter");
  if (name == "host" || name == "path") return fail(fmt::format("'{{{}}}' already means the request's own", name));
  return PathSegment{PathSegment::Kind::parameter, std::string(name)};
}

Result<PathSegment> parse_segment(std::string_view text, bool last) {
  if (text == "*" && last) return PathSegment{PathSegment::Kind::rest, {}};
  if (text.size() >= 2 && text.front() == '{' && text.back() == '}')
    return parse_parameter(text.substr(1, text.size() - 2));
  return parse_literal(text);
}

}  // namespace

Result<HostPattern> HostPattern::parse(std::string_view text) {
  HostPattern pattern;
  if (text.substr(0, 2) == "*.") {
    pattern.kind = Kind::wildcard;
    text.remove_prefix(2);
  }
  if (text.size() > 1 && text.back() == '.') text.remove_suffix(1);
  pattern.name = lower(text);
  if (pattern.kind == Kind::exact && text.size() > 2 && text.front() == '[' && text.back() == ']') {
    const auto address = IpAddress::parse(text.substr(1, text.size() - 2));
    if (!address || !address->is_v6()) return fail("brackets hold an IPv6 address");
    pattern.name = "[" + address->to_string() + "]";
    return pattern;
  }
  if (text.find('*') != std::string_view::npos) return fail("'*' stands only first, as a whole label: '*.example.com'");
  if (text.find(':') != std::string_view::npos) return fail("a host stands without port and scheme");
  if (!is_host_name(text)) return fail("a host is labels of letters, digits and '-', joined by dots");
  return pattern;
}

bool HostPattern::matches(std::string_view host) const {
  if (kind == Kind::exact) return host == name;
  if (host.size() < name.size() + 2) return false;
  const size_t dot = host.size() - name.size() - 1;
  return host[dot] == '.' && host.substr(dot + 1) == name;
}

std::string HostPattern::to_string() const { return kind == Kind::wildcard ? "*." + name : name; }

std::strong_ordering compare_specificity(const HostPattern* a, const HostPattern* b) {
  const auto rank = [](const HostPattern* pattern) -> std::pair<int, size_t> {
    if (pattern == nullptr) return {0, 0};
    if (pattern->kind == HostPattern::Kind::wildcard) return {1, pattern->name.size()};
    return {2, 0};
  };
  return rank(a) <=> rank(b);
}

Result<PathPattern> PathPattern::parse(std::string_view text) {
  if (text.empty() || text.front() != '/') return fail("a path begins with '/'");
  if (text.size() > kMaxPathBytes) return fail(fmt::format("a path has at most {} bytes", kMaxPathBytes));
  PathPattern pattern;
  for (size_t start = 1;;) {
    const size_t slash = text.find('/', start);
    const bool last = slash == std::string_view::npos;
    auto segment = parse_segment(text.substr(start, last ? slash : slash - start), last);
    if (!segment) return segment.error();
    const bool again = segment->kind == PathSegment::Kind::parameter &&
                       std::find(pattern.segments.begin(), pattern.segments.end(), *segment) != pattern.segments.end();
    if (again) return fail(fmt::format("parameter '{{{}}}' stands twice", segment->text));
    pattern.segments.push_back(std::move(*segment));
    if (last) return pattern;
    start = slash + 1;
  }
}

bool PathPattern::matches(std::string_view path, PathParameters* parameters) const {
  if (parameters != nullptr) parameters->clear();
  if (path.empty() || path.front() != '/') return false;
  size_t start = 1;
  bool more = true;  // true while the path has more segments from `start` on
  for (const PathSegment& segment : segments) {
    if (segment.kind == PathSegment::Kind::rest) return true;  // "/prefix/*" stands for "/prefix" too
    if (!more) return false;
    const size_t slash = path.find('/', start);
    more = slash != std::string_view::npos;
    const std::string_view part = path.substr(start, more ? slash - start : slash);
    if (segment.kind == PathSegment::Kind::literal && part != segment.text) return false;
    if (segment.kind == PathSegment::Kind::parameter) {
      if (part.empty()) return false;
      if (parameters != nullptr) parameters->emplace_back(segment.text, part);
    }
    start = slash + 1;
  }
  return !more;
}

std::string PathPattern::shape() const {
  std::string shape;
  for (const PathSegment& segment : segments) {
    shape += '/';
    if (segment.kind == PathSegment::Kind::literal) shape += segment.text;
    if (segment.kind == PathSegment::Kind::parameter) shape += "{}";
    if (segment.kind == PathSegment::Kind::rest) shape += '*';
  }
  return shape;
}

std::string PathPattern::to_string() const {
  std::string text;
  for (const PathSegment& segment : segments) {
    text += '/';
    if (segment.kind == PathSegment::Kind::parameter) {
      text += "{" + segment.text + "}";
    } else {
      text += segment.kind == PathSegment::Kind::rest ? "*" : segment.text;
    }
  }
  return text;
}

std::string_view rest_of_path(std::string_view path, std::string_view pattern) {
  if (!pattern.ends_with("/*")) return {};
  size_t slash = 0;
  for (auto before = std::count(pattern.begin(), pattern.end(), '/'); before > 1; --before) {
    slash = path.find('/', slash + 1);
    if (slash == std::string_view::npos) return {};
  }
  path.remove_prefix(std::min(slash, path.size()));
  while (path.starts_with("//")) path.remove_prefix(1);
  return path;
}

std::strong_ordering compare_specificity(const PathPattern& a, const PathPattern& b) {
  const size_t common = std::min(a.segments.size(), b.segments.size());
  for (size_t i = 0; i < common; ++i) {
    if (const auto order = a.segments[i].kind <=> b.segments[i].kind; order != 0) return order;
  }
  if (a.segments.size() == b.segments.size()) return std::strong_ordering::equal;
  const bool a_longer = a.segments.size() > common;
  const bool rest = (a_longer ? a : b).segments[common].kind == PathSegment::Kind::rest;
  return a_longer != rest ? std::strong_ordering::greater : std::strong_ordering::less;
}

std::strong_ordering compare_rank(const Route& a, const Route& b) {
  if (const auto order = a.priority <=> b.priority; order != 0) return order;
  const auto conditions = [](const Route& route) {
    const RouteConditions& match = route.match;
    return match.headers.size() + match.query.size() + match.cookies.size() + (match.clients.empty() ? 0 : 1) +
           match.headers_regex.size() + match.query_regex.size() + (match.path_regex.empty() ? 0 : 1);
  };
  return conditions(a) <=> conditions(b);
}

}  // namespace tidegate
