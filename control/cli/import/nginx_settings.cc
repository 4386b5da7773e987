// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/nginx_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <set>

#include "conf/model/common.h"
#include "conf/names.h"
#include "conf/route_checks.h"
#include "conf/text.h"
#include "core/http1.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Directive = NginxDirective;
using Target = NginxTarget;
using Setting = NginxSetting;

// Directives that need no key.
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
      "proxy_pass_request_body",
  };
  return kHeld;
}

// Why a known directive has no counterpart.
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
      {"rewrite", "see the policy transform: path"},
      {"map", "there are no variables"},
      {"set", "there are no variables"},
      {"limit_req", "see the policy limit"},
      {"limit_req_zone", "see the policy limit"},
      {"limit_conn", "the bound is max_connections_per_client of nodes.l7"},
      {"limit_conn_zone", "the bound is max_connections_per_client of nodes.l7"},
      {"auth_request_set", "see policies.authenticate.forward.to_backend"},
      {"auth_delay", "wrong passwords are counted: see l7/README.md"},
      {"auth_jwt", "see policies.authenticate.jwt"},
      {"secure_link", "see policies.authenticate.signatures"},
      {"secure_link_md5", "see policies.authenticate.signatures"},
      {"secure_link_secret", "see policies.authenticate.signatures"},
      {"modsecurity", "there is no such filter"},
      {"valid_referers", "a route can ask for a Referer: match.headers_regex"},
      {"error_page", "an error has a fixed answer"},
      {"proxy_intercept_errors", "an error has a fixed answer"},
      {"ssl_ciphers", "the ciphers are those of OpenSSL's default for the version"},
      {"ssl_dhparam", "key exchange is by elliptic curves"},
      {"ssl_stapling", "certificates are not stapled"},
      {"ssl_stapling_verify", "certificates are not stapled"},
      {"stub_status", "see /metrics"},
      {"sub_filter", "bodies are not changed"},
      {"proxy_cookie_path", "bodies and cookies are not changed"},
      {"proxy_cache_bypass", "it has a condition; see cache.ignore_reload"},
      {"proxy_no_cache", "it has a condition; the backend says no-store"},
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

// A text with variables of nginx as one of policies.transform. Nothing: it has others.
std::optional<std::string> nginx_variables_of(const std::string& text) {
  static const std::map<std::string, std::string> kVariables = {
      {"remote_addr", "{client}"},
      {"scheme", "{scheme}"},
      {"host", "{host}"},
      {"http_host", "{authority}"},
      {"request_method", "{method}"},
      {"request_id", "{request_id}"},
      {"server_port", "{port}"},
      {"remote_user", "{identity}"},
      {"ssl_protocol", "{tls.version}"},
      {"uri", "{path}"},
      {"document_uri", "{path}"},
      {"args", "{query}"},
      {"query_string", "{query}"},
  };
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    if (text[at] == '{' || text[at] == '}') out += text[at];
    if (text[at] != '$') {
      out += text[at];
      continue;
    }
    const bool braces = at + 1 < text.size() && text[at + 1] == '{';
    const size_t begin = at + 1 + (braces ? 1 : 0);
    const size_t end = std::min(
        text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", begin), text.size());
    std::string name = text.substr(begin, end - begin);
    if (const auto known = kVariables.find(name); known != kVariables.end()) {
      out += known->second;
    } else if (name.starts_with("http_") && name.size() > 5) {
      std::replace(name.begin(), name.end(), '_', '-');
      out += "{header." + name.substr(5) + "}";
    } else if (name.starts_with("arg_") && name.size() > 4) {
      out += "{query." + name.substr(4) + "}";
    } else if (name.starts_with("cookie_") && name.size() > 7) {
      out += "{cookie." + name.substr(7) + "}";
    } else {
      return std::nullopt;
    }
    at = end - (braces && end < text.size() && text[end] == '}' ? 0 : 1);
  }
  return out;
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

void NginxTarget::finish() {
  json transform = json::object();
  if (!to_backend.empty()) transform["request_headers"] = to_backend;
  if (!to_client.empty()) transform["response_headers"] = to_client;
  if (!transform.empty()) (*route)["policies"].push_back(into->policy("fields", {{"transform", transform}}));
}

bool nginx_is_host(const std::string& field) { return lower_case(field) == "host"; }

bool nginx_include_is_known(const std::string& path) {
  static const std::set<std::string> kKnown = {
      "mime.types",  "proxy_params", "fastcgi_params", "fastcgi.conf", "uwsgi_params",
      "scgi_params", "koi-utf",      "koi-win",        "win-utf",      "options-ssl-nginx.conf"};
  return kKnown.count(path.substr(path.rfind('/') + 1)) != 0;
}

Result<void> set_nginx_header(NginxTarget& target, const Directive& directive, const char* key) {
  const std::string name = lower_case(argument_of(directive, 0));
  const std::string& value = argument_of(directive, 1);
  if (!http1::is_token(name)) return fail("no field is named");
  const bool request = key == std::string_view("request_headers");
  if (request) {
    // The proxy sets these itself, or handles them.
    static const std::map<std::string, std::set<std::string>> kOwn = {
        {"host", {"$host", "$http_host"}},
        {"x-forwarded-for", {"$proxy_add_x_forwarded_for", "$remote_addr"}},
        {"x-forwarded-proto", {"$scheme"}},
        {"x-forwarded-host", {"$host", "$http_host"}},
        {"connection", {"", "upgrade", "$connection_upgrade"}},
        {"upgrade", {"$http_upgrade"}},
    };
    const auto own = kOwn.find(name);
    if (own != kOwn.end() && own->second.count(value) != 0) return {};
    if (name == "host" && value.find('$') != std::string::npos) return fail("the host is the client's, or a fixed one");
    if (name == "host") return set_once((*target.route)[key], name, value);
  }
  if (is_framing_field(name)) return fail("the proxy frames each message itself");
  if (!request && value.empty()) return {};  // nginx does not send it
  const std::optional<std::string> text = nginx_variables_of(value);
  json& changes = request ? target.to_backend : target.to_client;
  if (!text) {
    // Whoever reads the field believes the proxy, not the client.
    if (request) changes.push_back({{"remove", name}});
    return fail(request ? "there is no such variable; a client's own field is removed" : "there is no such variable");
  }
  if (request && text->empty()) {
    changes.push_back({{"remove", name}});
  } else {
    changes.push_back({{request ? "set" : "add", name}, {"value", *text}});
  }
  return {};
}

// Directives in a location, or above it, about requests that go to a pool.
const std::map<std::string, Setting>& nginx_proxy_settings() {
  static const std::map<std::string, Setting> kSettings = {
      {"proxy_connect_timeout", pool_duration({"connect_timeout"})},
      {"proxy_read_timeout", pool_duration({"first_byte_timeout", "idle_timeout"})},
      {"proxy_send_timeout", [](Target&, const Directive&) -> Result<void> { return {}; }},  // idle_timeout covers it
      {"proxy_set_header", [](Target& t, const Directive& d) { return set_nginx_header(t, d, "request_headers"); }},
      {"grpc_set_header", [](Target& t, const Directive& d) { return set_nginx_header(t, d, "request_headers"); }},
      {"proxy_hide_header",
       [](Target& t, const Directive& d) -> Result<void> {
         if (!http1::is_token(argument_of(d))) return fail("no field is named");
         t.to_client.insert(t.to_client.begin(), json({{"remove", lower_case(argument_of(d))}}));
         return {};
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
