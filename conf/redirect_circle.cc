// SPDX-License-Identifier: Apache-2.0
#include "conf/redirect_circle.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>

#include "conf/model/listener.h"
#include "conf/route_pattern.h"
#include "conf/text.h"

namespace tidegate {
namespace {

constexpr std::string_view kSampleSegment = "x";

// Where a client asks next.
struct RedirectTarget {
  bool tls = false;
  std::string host;                  // lower case
  std::optional<uint16_t> port = 0;  // nothing: the port of the first request
  std::string path;
};

std::string sample_path(const PathPattern& pattern) {
  std::string path;
  for (const PathSegment& segment : pattern.segments) {
    path += '/';
    path += segment.kind == PathSegment::Kind::literal ? std::string_view(segment.text) : kSampleSegment;
  }
  return path.empty() ? "/" : path;
}

std::string sample_host(const Route& route) {
  if (route.hosts.empty()) return "any.example";
  const Result<HostPattern> host = HostPattern::parse(route.hosts.front());
  if (!host) return {};
  return host->kind == HostPattern::Kind::exact ? host->name : std::string(kSampleSegment) + "." + host->name;
}

// As the proxy expands a redirect, for a request without a query. {authority} is not replaced, because it has a port.
std::string expand_sample(std::string_view location, const PathPattern& pattern, const std::string& host,
                          const std::string& path) {
  std::string out;
  while (!location.empty()) {
    const size_t open = std::min(location.find('{'), location.size());
    out += location.substr(0, open);
    location.remove_prefix(open);
    const size_t close = location.find('}');
    if (location.empty() || close == std::string_view::npos) break;
    const std::string_view name = location.substr(1, close - 1);
    const bool parameter = std::any_of(pattern.segments.begin(), pattern.segments.end(), [&](const PathSegment& each) {
      return each.kind == PathSegment::Kind::parameter && each.text == name;
    });
    if (name == "host") {
      out += host;
    } else if (name == "path") {
      out += path;
    } else if (parameter) {
      out += kSampleSegment;
    } else if (name == "rest") {
      out += rest_of_path(path, pattern.to_string());
    } else if (name == "authority") {
      out += "{authority}";
    }
    location.remove_prefix(close + 1);
  }
  return out;
}

// "host:port", "[2001:db8::1]". Returns false if it is malformed.
bool read_redirect_authority(std::string_view text, const std::string& own_host, RedirectTarget& out) {
  if (text == "{authority}") {
    out.host = own_host;
    out.port.reset();
    return true;
  }
  out.port = out.tls ? 443 : 80;
  const size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && text.find(']', colon) == std::string_view::npos) {
    const std::string_view digits = text.substr(colon + 1);
    uint16_t port = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    if (!digits.empty() && (error != std::errc() || end != digits.data() + digits.size())) return false;
    if (!digits.empty()) out.port = port;
    text = text.substr(0, colon);
  }
  out.host = lower_case(text);
  if (out.host.ends_with('.')) out.host.pop_back();
  return !out.host.empty();
}

// Returns nothing if the location is neither an absolute URL nor an absolute path.
std::optional<RedirectTarget> read_redirect_target(std::string_view url, bool tls, const std::string& own_host) {
  RedirectTarget target{tls, own_host, std::nullopt, {}};
  const size_t scheme_end = url.find("://");
  const bool has_scheme = scheme_end != std::string_view::npos && url.find('/') == scheme_end + 1;
  if (has_scheme) {
    const std::string scheme = lower_case(url.substr(0, scheme_end));
    if (scheme != "http" && scheme != "https") return std::nullopt;
    target.tls = scheme == "https";
    url.remove_prefix(scheme_end + 1);
  }
  if (url.starts_with("//")) {
    url.remove_prefix(2);
    const size_t end = std::min(url.find_first_of("/?#"), url.size());
    if (!read_redirect_authority(url.substr(0, end), own_host, target)) return std::nullopt;
    url.remove_prefix(end);
  } else if (has_scheme || !url.starts_with('/')) {
    return std::nullopt;
  }
  target.path = url.substr(0, url.find_first_of("?#"));
  if (target.path.empty()) target.path = "/";
  return target;
}

// The most specific pattern of a route that matches this host. Returns false if none does.
bool takes_host(const Route& route, const std::string& host, std::optional<HostPattern>& best) {
  best.reset();
  bool takes = route.hosts.empty();
  for (const std::string& text : route.hosts) {
    const Result<HostPattern> pattern = HostPattern::parse(text);
    if (!pattern || !pattern->matches(host)) continue;
    takes = true;
    if (!best || compare_specificity(&*pattern, &*best) > 0) best = *pattern;
  }
  return takes;
}

bool takes_target(const Route& route, const RedirectTarget& target, std::optional<HostPattern>& host,
                  PathPattern& path) {
  const Result<PathPattern> pattern = PathPattern::parse(route.path);
  if (!pattern || !pattern->matches(target.path) || !takes_host(route, target.host, host)) return false;
  path = *pattern;
  return true;
}

}  // namespace

bool serves(const Route& route, size_t listener) {
  return route.listeners.empty() ||
         std::find(route.listeners.begin(), route.listeners.end(), listener) != route.listeners.end();
}

bool leads_back(const Model& model, size_t route_index, size_t listener_index) {
  const Route& route = model.routes[route_index];
  const Listener& listener = model.listeners[listener_index];
  const RouteRedirect* redirect = route.redirect();
  const Result<PathPattern> pattern = PathPattern::parse(route.path);
  if (redirect == nullptr || !pattern || !route.match.query.empty()) return false;
  const std::string host = sample_host(route), path = sample_path(*pattern);
  const auto target =
      read_redirect_target(expand_sample(redirect->location, *pattern, host, path), listener.tls.enabled, host);
  if (!target || target->tls != listener.tls.enabled) return false;
  const bool same_port = !target->port || std::any_of(listener.bind.begin(), listener.bind.end(),
                                                      [&](const auto& bound) { return bound.port == *target->port; });
  std::optional<HostPattern> own_host, other_host;
  PathPattern own_path, other_path;
  if (!same_port || !takes_target(route, *target, own_host, own_path)) return false;
  for (size_t r = 0; r < model.routes.size(); ++r) {
    const Route& other = model.routes[r];
    if (r == route_index || !serves(other, listener_index) || !takes_target(other, *target, other_host, other_path))
      continue;
    const auto by_host = compare_specificity(other_host ? &*other_host : nullptr, own_host ? &*own_host : nullptr);
    const auto by_path = compare_specificity(other_path, own_path);
    if (by_host > 0 || (by_host == 0 && (by_path > 0 || (by_path == 0 && compare_rank(other, route) > 0))))
      return false;
  }
  return true;
}

}  // namespace tidegate
