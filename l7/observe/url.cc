// SPDX-License-Identifier: Apache-2.0
#include "l7/observe/url.h"

#include <algorithm>
#include <charconv>

#include "cache/policy/key.h"
#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/route.h"
#include "l7/exchange/conditions.h"

namespace tidegate::l7 {

std::optional<Url> parse_url(std::string_view text, Arena& arena) {
  Url url;
  text = text.substr(0, text.find('#'));
  const size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos) return std::nullopt;
  const std::string_view scheme = text.substr(0, scheme_end);
  url.tls = http1::equals_ignore_case(scheme, "https");
  if (!url.tls && !http1::equals_ignore_case(scheme, "http")) return std::nullopt;
  text.remove_prefix(scheme_end + 3);
  const size_t path_start = std::min(text.find_first_of("/?"), text.size());
  url.request.authority = text.substr(0, path_start);
  url.request.host = host_of_authority(url.request.authority, arena);
  if (url.request.host.empty()) return std::nullopt;
  url.port = url.tls ? 443 : 80;
  const size_t colon = url.request.authority.rfind(':');
  if (colon != std::string_view::npos && colon + 1 < url.request.authority.size() &&
      url.request.authority.back() != ']') {
    std::from_chars(url.request.authority.data() + colon + 1,
                    url.request.authority.data() + url.request.authority.size(), url.port);
  }
  std::string_view target = text.substr(path_start);
  const size_t question = target.find('?');
  url.request.has_query = question != std::string_view::npos;
  if (url.request.has_query) url.request.query = target.substr(question + 1);
  target = target.substr(0, question);
  url.request.path = normalise_path(target.empty() ? "/" : target, arena);
  if (url.request.path.empty()) return std::nullopt;
  return url;
}

std::vector<std::string> cache_keys_of_url(const Description& description, std::string_view text) {
  Arena arena;
  const std::optional<Url> url = parse_url(text, arena);
  if (!url) return {};
  const RequestHead& request = url->request;
  // There are two possible forms of the host before the port, because request.host has lost its final dot.
  const std::string bare(request.host);
  const bool dotted = request.authority.size() > bare.size() && request.authority[bare.size()] == '.';
  const std::string port(request.authority.substr(bare.size() + (dotted ? 1 : 0)));
  std::vector<std::string> hosts{bare + port};
  if (bare.back() != ']') hosts.push_back(bare + "." + port);

  std::vector<std::string> keys;
  std::string key;
  const auto add_key = [&keys](const std::string& one) {
    if (std::find(keys.begin(), keys.end(), one) == keys.end()) keys.push_back(one);
  };
  const auto add = [&](const RouteCache& policy) {
    for (const std::string& host : hosts) {
      cache::make_key({"GET", url->tls ? "https" : "http", host, request.path, request.query, {}}, policy, key);
      add_key(key);
      if (policy.purge_both_schemes) add_key(cache::other_scheme_key(key));
    }
  };
  add({});
  for (const uint32_t listener : description.listeners) {
    const Listener& config = description.model().listeners[listener];
    RouteParameters parameters;
    const std::string_view path = path_for_routes(request.path, config.merge_slashes, arena);
    // Routes that depend on fields or clients have no cache.
    const RequestConditions judge(request, {});
    const RouteMatch match = description.router->match(listener, "GET", request.host, path, parameters, &judge);
    if (match.route == kNone) continue;
    const RouteCache& policy = description.model().routes[match.route].cache;
    // A trusted proxy says which scheme its client used.
    const bool has_scheme = config.tls.enabled == url->tls || !config.trusted_proxies.empty();
    if (has_scheme || policy.purge_both_schemes) add(policy);
  }
  return keys;
}

}  // namespace tidegate::l7
