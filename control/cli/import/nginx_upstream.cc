// SPDX-License-Identifier: Apache-2.0
// An upstream of nginx as a pool.

#include <fmt/format.h>

#include <algorithm>

#include "control/cli/import/nginx_settings.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;

Result<void> upstream_server(const NginxDirective& directive, json& pool) {
  json& backends = pool["backends"];
  Result<json> backend = backend_of(argument_of(directive), 80, backends.size() + 1);
  Result<void> outcome;
  if (!backend) {
    outcome = backend.error();
  } else {
    for (size_t i = 1; i < directive.arguments.size(); ++i) {
      const std::string& word = directive.arguments[i];
      const size_t equals = word.find('=');
      const std::string key = word.substr(0, equals),
                        value = equals == std::string::npos ? "" : word.substr(equals + 1);
      const std::optional<uint64_t> number = number_of(value);
      if (key == "weight" && number) (*backend)["weight"] = *number * 10;
      if (key == "max_fails" && number) pool["eject_after"] = *number;
      if (key == "fail_timeout" && duration_of(value, "s")) pool["eject"] = *duration_of(value, "s");
      if (key == "max_conns" && number && *number > 0) pool["max_connections"] = *number;
      if (key == "down") (*backend)["weight"] = 0;
      if (key == "backup") (*backend)["backup"] = true;
    }
  }
  if (outcome) {
    // Weights are multiplied by ten here, so a server without a weight gets ten too.
    if (backend->count("weight") == 0) (*backend)["weight"] = 10;
    backends.push_back(*std::move(backend));
  }
  if (backends.empty()) pool.erase("backends");
  return outcome;
}

}  // namespace

Result<NginxUpstreamUrl> nginx_upstream_url(const NginxDirective& directive) {
  NginxUpstreamUrl out;
  std::string url = argument_of(directive);
  const size_t scheme = url.find("://");
  const std::string protocol = scheme == std::string::npos ? "http" : url.substr(0, scheme);
  out.grpc = directive.name == "grpc_pass";
  out.tls = protocol == "https" || protocol == "grpcs";
  if (scheme != std::string::npos) url = url.substr(scheme + 3);
  if (url.find('$') != std::string::npos) return fail("where requests go does not depend on variables");
  if (url.starts_with("unix:")) return fail("backends have addresses");
  const size_t slash = url.find('/');
  if (slash != std::string::npos) out.path = url.substr(slash);
  out.host = url.substr(0, slash);
  out.pool = name_of(out.host);
  return out;
}

Result<void> set_nginx_upstream(const NginxDirective& directive, json& pool) {
  const std::string& name = directive.name;
  if (name == "server") return upstream_server(directive, pool);
  if (name == "least_conn") return set_once(pool, "policy", "least_requests");
  if (name == "ip_hash") return set_once(pool, "policy", "consistent_hash");
  if (name == "keepalive") {
    const std::optional<uint64_t> count = number_of(argument_of(directive));
    return count ? set_once(pool, "keepalive_connections", *count) : fail("it is no number");
  }
  if (name == "keepalive_timeout") return set_nginx_duration(pool, "keepalive_timeout", argument_of(directive));
  if (name == "hash") {
    const std::string& key = argument_of(directive);
    const std::string on = key == "$request_uri" || key == "$uri"                  ? "path"
                           : key == "$remote_addr" || key == "$binary_remote_addr" ? "client"
                           : key.starts_with("$http_")                             ? "header:" + key.substr(6)
                                                                                   : "";
    if (on.empty()) return fail("hash_on is client, path or a header");
    pool["policy"] = "consistent_hash";
    std::string field = on;
    std::replace(field.begin(), field.end(), '_', '-');
    return set_once(pool, "hash_on", field);
  }
  return fail(why_nginx_left(name));
}

}  // namespace tidegate::cli
