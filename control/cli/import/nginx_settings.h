// SPDX-License-Identifier: Apache-2.0
// What the directives of nginx mean here: those that need no key, those that set a key of a pool or route, and why the
// others have no counterpart.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "control/cli/import/imported.h"
#include "control/cli/import/nginx_syntax.h"

namespace tidegate::cli {

// What a directive of a location can change. The pool is the one of its proxy_pass; null: the location has none.
struct NginxTarget {
  nlohmann::json* pool = nullptr;
  nlohmann::json* route = nullptr;
  nlohmann::json* node = nullptr;
  Imported* into = nullptr;
  // Changes of fields, as policies.transform has them.
  nlohmann::json to_backend = nlohmann::json::array(), to_client = nlohmann::json::array();

  // Gives the route a policy with the changes, if there are any.
  void finish();
};
using NginxSetting = std::function<Result<void>(NginxTarget&, const NginxDirective&)>;

const std::string& argument_of(const NginxDirective& directive, size_t i = 0);  // empty if there are fewer
bool nginx_holds(const std::string& name);
std::string why_nginx_left(const std::string& name);
Result<void> set_nginx_duration(nlohmann::json& object, const char* key, const std::string& text);
Result<void> set_nginx_header(NginxTarget& target, const NginxDirective& directive, const char* key);
bool nginx_is_host(const std::string& field);
// Whether an included file is one of those that come with nginx and keep nobody away.
bool nginx_include_is_known(const std::string& path);
// What `return` answers, as keys of a route. `hosts`: of its server.
Result<nlohmann::json> nginx_answer(const NginxDirective& directive, const std::vector<std::string>& hosts);

// Where proxy_pass or grpc_pass leads.
struct NginxUpstreamUrl {
  std::string pool, host;  // its name; what stands in the URL
  std::string path;        // empty: the request's
  bool tls = false, grpc = false;
};
Result<NginxUpstreamUrl> nginx_upstream_url(const NginxDirective& directive);
// Applies a directive of an upstream block.
Result<void> set_nginx_upstream(const NginxDirective& directive, nlohmann::json& pool);
// Directives about requests that go to a pool, in a location or above it.
const std::map<std::string, NginxSetting>& nginx_proxy_settings();

}  // namespace tidegate::cli
