// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Directive = NginxDirective;
using Target = NginxTarget;
using Setting = NginxSetting;

// What holds without any key.
const std::set<std::string>& held() {
  static const std::set<std::string> kHeld = {
      "events",
      "worker_connections",
      "multi_accept",
      "use",
      "sendfile",
      "tcp_nopush",
      "tcp_nodelay",
      "proxy_http_version",
      "proxy_buffering",
      "proxy_cache_lock",
      "zone",
      "worker_rlimit_nofile",
      "proxy_buffers",
      "proxy_buffer_size",
      "proxy_cache_key",
      "ssl_prefer_server_ciphers",
      "http2",
      "ssl_session_cache",
      "ssl_session_timeout",
      "proxy_ssl_server_name",
      "proxy_redirect",
      "server_tokens",
      "proxy_busy_buffers_size",
      "proxy_cache_revalidate",
      "proxy_cache_background_update",
  };
  return kHeld;
}

// Why a directive that is known has no counterpart.
const std::map<std::string, std::string>& reasons() {
  static const std::map<std::string, std::string> kReasons = {
      {"user", "the service manager says as which user a daemon runs"},
      {"pid", "the service manager knows the process"},
      {"error_log", "the log goes to standard error, to the journal"},
      {"log_format", "see access_log_format of nodes.l7: a template with variables in braces"},
      {"include", "included files are not read: import them by themselves"},
      {"default_type", "no files are served"},
      {"types", "no files are served"},
      {"root", "no files are served"},
      {"alias", "no files are served"},
      {"index", "no files are served"},
      {"try_files", "no files are served"},
      {"expires", "the backend says how long an answer is fresh; see cache.default_ttl"},
      {"gzip", "see the policy compress"},
      {"gzip_types", "see the policy compress"},
      {"gzip_vary", "see the policy compress"},
      {"gzip_proxied", "see the policy compress"},
      {"gzip_min_length", "see the policy compress"},
      {"gzip_comp_level", "see the policy compress"},
      {"rewrite", "paths are not rewritten"},
      {"if", "routes do not depend on anything but host, path and method"},
      {"map", "there are no variables"},
      {"set", "there are no variables"},
      {"limit_req", "see the policy limit"},
      {"limit_req_zone", "see the policy limit"},
      {"limit_conn", "the bound is max_connections_per_client of nodes.l7"},
      {"limit_conn_zone", "the bound is max_connections_per_client of nodes.l7"},
      {"auth_basic", "see the policy authenticate"},
      {"auth_basic_user_file", "see the policy authenticate"},
      {"auth_request", "see the policy authenticate"},
      {"allow", "there are no access lists"},
      {"deny", "there are no access lists"},
      {"error_page", "an error has a fixed answer"},
      {"proxy_intercept_errors", "an error has a fixed answer"},
      {"ssl_ciphers", "the ciphers are those of OpenSSL's default for the version"},
      {"ssl_dhparam", "key exchange is by elliptic curves"},
      {"ssl_stapling", "certificates are not stapled"},
      {"ssl_stapling_verify", "certificates are not stapled"},
      {"stub_status", "see /metrics"},
      {"sub_filter", "bodies are not changed"},
      {"proxy_cookie_path", "bodies and cookies are not changed"},
      {"proxy_cache_bypass", "there are no variables; see cache.ignore_reload"},
      {"proxy_no_cache", "there are no variables; the backend says no-store"},
      {"proxy_cache_methods", "GET and HEAD are cached"},
      {"proxy_cache_min_uses", "the first answer is stored"},
      {"stream", "TCP and UDP are the forwarder's: see services"},
  };
  return kReasons;
}

Result<void> set_cache(Target& target, const Directive& directive) {
  const bool off = argument_of(directive) == "off";
  if (!off) (*target.node)["cache"]["enabled"] = true;
  return set_once((*target.route)["cache"], "enabled", !off);
}

Setting pool_duration(std::vector<const char*> keys) {
  return [keys](Target& target, const Directive& directive) -> Result<void> {
    for (const char* key : keys) {
      if (Result<void> set = set_nginx_duration(*target.pool, key, argument_of(directive)); !set) return set;
    }
    return {};
  };
}

}  // namespace

const std::string& argument_of(const NginxDirective& directive, size_t i) {
  static const std::string kNone;
  return i < directive.arguments.size() ? directive.arguments[i] : kNone;
}

bool nginx_holds(const std::string& name) { return held().count(name) != 0; }

std::string why_nginx_left(const std::string& name) {
  const auto known = reasons().find(name);
  return known == reasons().end() ? "there is no key for it" : known->second;
}

Result<void> set_nginx_duration(json& object, const char* key, const std::string& text) {
  const std::optional<std::string> duration = duration_of(text, "s");
  if (!duration) return fail(fmt::format("'{}' is no number with one unit", text));
  return set_once(object, key, *duration);
}

Result<void> set_nginx_header(NginxTarget& target, const Directive& directive, const char* key) {
  const std::string& name = argument_of(directive, 0);
  const std::string& value = argument_of(directive, 1);
  if (name.empty()) return fail("no field is named");
  std::string lower = name;
  std::transform(lower.begin(), lower.end(), lower.begin(), [](unsigned char c) { return std::tolower(c); });
  if (key == std::string_view("request_headers")) {
    // The proxy sets these itself, or sees to them.
    static const std::map<std::string, std::set<std::string>> kOwn = {
        {"host", {"$host", "$http_host"}},
        {"x-forwarded-for", {"$proxy_add_x_forwarded_for", "$remote_addr"}},
        {"x-forwarded-proto", {"$scheme"}},
        {"x-forwarded-host", {"$host", "$http_host"}},
        {"connection", {"", "upgrade", "$connection_upgrade"}},
        {"upgrade", {"$http_upgrade"}},
    };
    const auto own = kOwn.find(lower);
    if (own != kOwn.end() && own->second.count(value) != 0) return {};
  }
  if (value.find('$') != std::string::npos) return fail("there are no variables");
  return set_once((*target.route)[key], lower, value);
}

// Directives of a location, or above it, about requests that go to a pool.
const std::map<std::string, Setting>& nginx_proxy_settings() {
  static const std::map<std::string, Setting> kSettings = {
      {"proxy_connect_timeout", pool_duration({"connect_timeout"})},
      {"proxy_read_timeout", pool_duration({"first_byte_timeout", "idle_timeout"})},
      {"proxy_send_timeout", [](Target&, const Directive&) -> Result<void> { return {}; }},  // idle_timeout
      {"proxy_set_header", [](Target& t, const Directive& d) { return set_nginx_header(t, d, "request_headers"); }},
      {"grpc_set_header", [](Target& t, const Directive& d) { return set_nginx_header(t, d, "request_headers"); }},
      {"proxy_hide_header",
       [](Target& t, const Directive& d) {
         Directive removed = d;
         removed.arguments.resize(1);
         return set_nginx_header(t, removed, "response_headers");
       }},
      {"proxy_cache", set_cache},
      {"proxy_cache_valid",
       [](Target& t, const Directive& d) -> Result<void> {
         const bool all = d.arguments.size() == 1 || argument_of(d, 0) == "200" || argument_of(d, 0) == "any";
         if (!all) return fail("default_ttl is for every status that may be stored; give it for 200");
         return set_nginx_duration((*t.route)["cache"], "default_ttl", d.arguments.empty() ? "" : d.arguments.back());
       }},
      {"proxy_cache_use_stale",
       [](Target& t, const Directive& d) -> Result<void> {
         if (argument_of(d) == "off") return {};
         return set_once((*t.route)["cache"], "stale_if_error", "1d");
       }},
      {"proxy_ssl_verify",
       [](Target& t, const Directive& d) { return set_once(*t.pool, "tls_verify", argument_of(d) == "on"); }},
      {"proxy_ssl_trusted_certificate",
       [](Target& t, const Directive& d) { return set_once(*t.pool, "tls_ca_file", argument_of(d)); }},
      {"proxy_ssl_name",
       [](Target& t, const Directive& d) { return set_once(*t.pool, "tls_server_name", argument_of(d)); }},
      {"proxy_next_upstream_tries",
       [](Target& t, const Directive& d) -> Result<void> {
         const std::optional<uint64_t> tries = number_of(argument_of(d));
         if (!tries || *tries == 0) return fail("there is always a bound");
         return set_once(*t.pool, "retry_attempts", *tries - 1);
       }},
      {"proxy_next_upstream",
       [](Target& t, const Directive& d) -> Result<void> {
         if (argument_of(d) == "off") return set_once(*t.pool, "retry_attempts", 0);
         return {};
       }},
  };
  return kSettings;
}

}  // namespace tidegate::cli
