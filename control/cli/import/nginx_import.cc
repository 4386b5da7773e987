// SPDX-License-Identifier: Apache-2.0
// nginx's configuration as an edge. A server becomes routes with its names, a location becomes a route, an upstream or
// an address in proxy_pass becomes a pool.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "control/cli/import/imported.h"
#include "control/cli/import/nginx_settings.h"
#include "control/cli/import/nginx_syntax.h"
#include "core/ip.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Directive = NginxDirective;
using Directives = std::vector<const Directive*>;
using Target = NginxTarget;

class NginxImport {
 public:
  explicit NginxImport(Imported& into) : into_(into) {}

  void run(const std::vector<Directive>& directives) {
    for (const Directive& directive : directives) top(directive);
    judge_late();
  }
  // The content of an http block.
  void run_bare(const Directive& block) {
    http(block);
    judge_late();
  }

 private:
  void judge_late() {
    for (const Directive* directive : judged_late_) {
      const auto outcome = outcomes_.find(directive);
      into_.judge(directive->line, directive->text(),
                  outcome == outcomes_.end() ? fail("no request goes to a backend below it") : outcome->second);
    }
  }

  void leave(const Directive& directive, const std::string& why) {
    into_.leave(directive.line, directive.text(), why);
    leave_block(directive, why);
  }
  void leave_block(const Directive& directive, const std::string& why) {
    for (const Directive& child : directive.block) leave(child, why);
  }

  // Directives that mean the same wherever they stand. Returns whether this was one.
  bool common(const Directive& directive) {
    if (nginx_holds(directive.name)) {
      into_.take();
      for (const Directive& child : directive.block) common(child) ? void() : leave(child, why_nginx_left(child.name));
      return true;
    }
    if (directive.name == "access_log") {
      const bool off = argument_of(directive) == "off";
      into_.judge(directive.line, directive.text(),
                  off ? Result<void>() : set_once(into_.node["l7"], "access_log", argument_of(directive)));
      return true;
    }
    return false;
  }

  void top(const Directive& directive) {
    if (directive.name == "http") {
      into_.take();
      http(directive);
    } else if (directive.name == "worker_processes") {
      const std::optional<uint64_t> workers = number_of(argument_of(directive));
      if (workers) into_.node["l7"]["workers"] = *workers;
      into_.judge(directive.line, directive.text(),
                  workers ? Result<void>() : fail("write the number of cores: workers of nodes.l7"));
    } else if (!common(directive)) {
      leave(directive, why_nginx_left(directive.name));
    }
  }

  void http(const Directive& block) {
    for (const Directive& child : block.block) {
      if (child.name == "upstream") upstream(child);
    }
    Directives settings;
    for (const Directive& child : block.block) collect(child, settings);
    for (const Directive& child : block.block) {
      if (child.name == "server") server(child, settings);
    }
  }

  // Adds what locations inherit. What stands for itself is judged at once.
  void collect(const Directive& directive, Directives& settings) {
    const std::string& name = directive.name;
    static const std::set<std::string> kElsewhere = {
        "upstream",    "server",   "location",        "listen",
        "server_name", "return",   "ssl_certificate", "ssl_certificate_key",
        "proxy_pass",  "grpc_pass"};
    static const std::set<std::string> kListener = {
        "client_max_body_size",        "client_header_timeout", "client_body_timeout", "keepalive_timeout",
        "large_client_header_buffers", "ssl_protocols",         "set_real_ip_from",    "real_ip_header",
        "underscores_in_headers",      "merge_slashes"};
    if (kElsewhere.count(name) != 0) return;
    if (nginx_proxy_settings().count(name) != 0 || name == "add_header" || kListener.count(name) != 0) {
      settings.push_back(&directive);
      judged_late_.push_back(&directive);
    } else if (name == "proxy_cache_path") {
      into_.judge(directive.line, directive.text(), cache_path(directive));
    } else if (!common(directive)) {
      leave(directive, why_nginx_left(name));
    }
  }

  Result<void> cache_path(const Directive& directive) {
    json& cache = into_.node["cache"];
    if (Result<void> set = set_once(cache, "path", argument_of(directive)); !set) return set;
    for (const std::string& word : directive.arguments) {
      constexpr std::string_view kSize = "max_size=";
      if (!word.starts_with(kSize)) continue;
      const std::optional<std::string> size = size_of(word.substr(kSize.size()));
      if (size) cache["disk"] = *size;
    }
    return {};
  }

  void upstream(const Directive& block) {
    const std::string name = name_of(argument_of(block));
    json& pool = into_.object("pools", name);
    into_.take();
    for (const Directive& child : block.block) {
      const Result<void> outcome = set_nginx_upstream(child, pool);
      if (outcome || !nginx_holds(child.name)) {
        into_.judge(child.line, child.text(), outcome);
      } else {
        into_.take();
      }
    }
    if (pool.count("backends") == 0) into_.remove("pools", name);
  }

  struct Server {
    std::vector<std::string> listeners, hosts;
    bool any_host = false;
    bool names_left = false;  // and none is taken
  };

  void server(const Directive& block, const Directives& inherited) {
    Server server;
    std::string certificate, key;
    const Directive* certificate_at = nullptr;
    const Directive* key_at = nullptr;
    for (const Directive& child : block.block) {
      if (child.name == "ssl_certificate") certificate = argument_of(child), certificate_at = &child;
      if (child.name == "ssl_certificate_key") key = argument_of(child), key_at = &child;
      if (child.name == "server_name") into_.judge(child.line, child.text(), names(child, server));
    }
    std::string certificate_name;
    if (!certificate.empty() && !key.empty()) {
      certificate_name = certificate_of(certificate, key);
      into_.take();
      into_.take();
    } else if (const Directive* alone = certificate_at != nullptr ? certificate_at : key_at) {
      into_.leave(alone->line, alone->text(), "a certificate needs its key beside it");
    }
    bool listens = false;
    for (const Directive& child : block.block) {
      if (child.name != "listen") continue;
      listens = true;
      into_.judge(child.line, child.text(), listen(child, certificate_name, server));
    }
    if (!listens) (void)listen(Directive{"listen", {"80"}, {}, false, block.line}, "", server);
    if (server.listeners.empty() || server.names_left) return leave_server(block);
    into_.take();
    Directives settings = inherited;
    for (const Directive& child : block.block) collect(child, settings);
    for (const std::string& name : server.listeners) {
      for (const Directive* setting : settings) listener_setting(*setting, into_.object("listeners", name));
    }
    for (const Directive& child : block.block) {
      if (child.name == "location") location(child, server, settings);
      if (child.name == "return") answer(child, server, "/*", settings);
      if (child.name == "proxy_pass" || child.name == "grpc_pass") leave(child, "it belongs into a location");
    }
  }

  // What is judged already is not told again.
  void leave_server(const Directive& block) {
    static const std::set<std::string> kJudged = {"server_name", "listen", "ssl_certificate", "ssl_certificate_key"};
    const std::string why = "none of its addresses or names is taken";
    into_.leave(block.line, block.text(), why);
    for (const Directive& child : block.block) {
      if (kJudged.count(child.name) == 0) leave(child, why);
    }
  }

  std::string certificate_of(const std::string& certificate, const std::string& key) {
    for (const json& known : into_.objects("certificates")) {
      if (known.at("certificate_file") == certificate && known.at("key_file") == key) return known.at("name");
    }
    const size_t slash = certificate.rfind('/') + 1;
    const std::string name = into_.free_name("certificates", certificate.substr(slash, certificate.rfind('.') - slash));
    json& object = into_.object("certificates", name);
    object["certificate_file"] = certificate;
    object["key_file"] = key;
    return name;
  }

  Result<void> names(const Directive& directive, Server& server) {
    Result<void> outcome;
    for (const std::string& name : directive.arguments) {
      if (name == "_" || name.empty()) {
        server.any_host = true;
      } else if (name.front() == '~' || name.ends_with(".*") || name.find('$') != std::string::npos) {
        outcome = fail(fmt::format("'{}' is a pattern that hosts cannot say", name));
      } else if (name.front() == '.') {
        server.hosts.push_back(name.substr(1));
        server.hosts.push_back("*" + name);
      } else {
        server.hosts.push_back(name);
      }
    }
    server.names_left = !outcome && server.hosts.empty() && !server.any_host;
    return outcome;
  }

  Result<void> listen(const Directive& directive, const std::string& certificate, Server& server) {
    const std::string& where = argument_of(directive);
    const std::vector<std::string>& words = directive.arguments;
    const bool has = std::find(words.begin(), words.end(), "ssl") != words.end();
    std::string address = "0.0.0.0", port = where;
    if (where.starts_with("unix:")) return fail("listeners have addresses");
    if (const size_t colon = where.rfind(':'); colon != std::string::npos && !where.ends_with(']')) {
      address = where.substr(0, colon);
      port = where.substr(colon + 1);
    } else if (where.find_first_not_of("0123456789") != std::string::npos) {
      address = where;
      port = "80";
    }
    if (address == "*") address = "0.0.0.0";
    const std::optional<Endpoint> endpoint = Endpoint::parse(address + ":" + port);
    if (!endpoint || endpoint->port == 0) return fail(fmt::format("'{}' is no address and port", where));
    if (has && certificate.empty()) return fail("TLS needs a certificate in the same server");
    const std::string name = fmt::format("{}-{}", has ? "https" : "http", endpoint->port);
    if (into_.has("listeners", fmt::format("{}-{}", has ? "http" : "https", endpoint->port)))
      return fail("another server has this port with, or without, TLS");
    json& listener = into_.object("listeners", name);
    const std::string bind = endpoint->to_string();
    json& binds = listener["bind"];
    if (std::find(binds.begin(), binds.end(), bind) == binds.end()) binds.push_back(bind);
    if (has) {
      json& certificates = listener["tls"]["certificates"];
      if (std::find(certificates.begin(), certificates.end(), certificate) == certificates.end())
        certificates.push_back(certificate);
    }
    if (std::find(server.listeners.begin(), server.listeners.end(), name) == server.listeners.end())
      server.listeners.push_back(name);
    return {};
  }

  // The innermost value of a directive counts, and of all servers the first.
  void listener_setting(const Directive& directive, json& listener) {
    const std::string& value = argument_of(directive);
    const auto size = [&](const char* key, const std::string& text) -> Result<void> {
      const std::optional<std::string> bytes = size_of(text);
      return bytes ? set_once(listener, key, *bytes) : fail("it is no size");
    };
    Result<void> outcome;
    if (directive.name == "client_max_body_size") {
      outcome = value == "0" ? fail("there is always a bound: max_body") : size("max_body", value);
    } else if (directive.name == "client_header_timeout") {
      outcome = set_nginx_duration(listener, "header_timeout", value);
    } else if (directive.name == "keepalive_timeout" || directive.name == "client_body_timeout") {
      outcome = set_nginx_duration(listener, "idle_timeout", value);
    } else if (directive.name == "large_client_header_buffers") {
      outcome = size("max_header", argument_of(directive, 1));
    } else if (directive.name == "ssl_protocols") {
      const bool old =
          std::find(directive.arguments.begin(), directive.arguments.end(), "TLSv1.2") != directive.arguments.end();
      if (listener.count("tls") != 0) listener["tls"]["min_version"] = old ? "1.2" : "1.3";
    } else if (directive.name == "set_real_ip_from") {
      json& proxies = listener["trusted_proxies"];
      if (!Cidr::parse(value)) {
        outcome = fail("trusted_proxies are networks");
      } else if (std::find(proxies.begin(), proxies.end(), value) == proxies.end()) {
        proxies.push_back(value);
      }
      if (proxies.is_null()) listener.erase("trusted_proxies");
    } else if (directive.name == "real_ip_header") {
      if (value != "X-Forwarded-For") outcome = fail("the client's address is read from X-Forwarded-For");
    } else if (directive.name == "underscores_in_headers" || directive.name == "merge_slashes") {
      outcome = set_once(listener, directive.name, value == "on");
    } else {
      return;
    }
    note(directive, outcome);
  }

  // One taking is enough; the first reason to leave it is told.
  void note(const Directive& directive, const Result<void>& outcome) {
    const auto [known, fresh] = outcomes_.emplace(&directive, outcome);
    if (!fresh && outcome) known->second = outcome;
  }

  void location(const Directive& block, const Server& server, const Directives& inherited) {
    const Result<std::string> path = path_of(block);
    if (!path) return leave(block, path.error().message);
    Directives settings = inherited;
    const Directive* passes = nullptr;
    const Directive* returns = nullptr;
    for (const Directive& child : block.block) {
      if (child.name == "proxy_pass" || child.name == "grpc_pass") passes = &child;
      if (child.name == "return") returns = &child;
    }
    if (passes == nullptr && returns == nullptr) {
      const bool files = std::any_of(block.block.begin(), block.block.end(), [](const Directive& child) {
        return child.name == "root" || child.name == "alias" || child.name == "try_files";
      });
      return leave(block, files ? "no files are served" : "it neither passes requests on nor answers them");
    }
    for (const Directive& child : block.block) {
      if (child.name == "location") leave(child, "a location in a location is not taken");
      collect(child, settings);
    }
    if (returns != nullptr) {
      into_.take();
      answer(*returns, server, *path, settings);
      if (passes != nullptr) leave(*passes, "the location returns before");
      return;
    }
    const std::string pool = pool_of(*passes, block);
    if (pool.empty()) {
      into_.leave(block.line, block.text(), "its requests have no pool");
      return;
    }
    json* route = new_route(server, *path);
    if (route == nullptr) {
      into_.leave(block.line, block.text(), "another location takes these requests");
      return;
    }
    into_.take();
    (*route)["pool"] = pool;
    apply(settings, {&into_.object("pools", pool), route, &into_.node});
  }

  static Result<std::string> path_of(const Directive& block) {
    const std::string modifier = block.arguments.size() > 1 ? argument_of(block) : "";
    const std::string path = block.arguments.empty() ? "" : block.arguments.back();
    if (modifier.starts_with("~"))
      return fail("nginx asks regular expressions before prefixes: write a route with match.path_regex and a priority");
    if (path.starts_with("@")) return fail("a location with a name of its own is reached from inside only");
    if (path.empty() || path.front() != '/' || path.find_first_of("*{}?#%") != std::string::npos)
      return fail("the path has characters that a route's path cannot have");
    if (modifier == "=") return path;
    return path.ends_with('/') ? path + "*" : path + "/*";
  }

  json* new_route(const Server& server, const std::string& path) {
    std::string key = path;
    for (const std::string& listener : server.listeners) key += " " + listener;
    const std::vector<std::string> hosts = server.any_host ? std::vector<std::string>() : server.hosts;
    for (const std::string& host : hosts) key += "," + host;
    if (!routes_.insert(key).second) return nullptr;
    const std::string base = (hosts.empty() ? "any" : hosts.front()) + path;
    json& route = into_.object("routes", into_.free_name("routes", base));
    route["listeners"] = server.listeners;
    if (!hosts.empty()) route["hosts"] = hosts;
    route["path"] = path;
    return &route;
  }

  // The name of the pool of proxy_pass; empty, and judged, if there is none.
  std::string pool_of(const Directive& directive, const Directive& location) {
    std::string url = argument_of(directive);
    const bool grpc = directive.name == "grpc_pass";
    const size_t scheme = url.find("://");
    const std::string protocol = scheme == std::string::npos ? "http" : url.substr(0, scheme);
    const bool tls = protocol == "https" || protocol == "grpcs";
    if (scheme != std::string::npos) url = url.substr(scheme + 3);
    const auto left = [&](const std::string& why) {
      into_.leave(directive.line, directive.text(), why);
      return std::string();
    };
    if (url.find('$') != std::string::npos) return left("there are no variables");
    if (url.starts_with("unix:")) return left("backends have addresses");
    const size_t slash = url.find('/');
    if (slash != std::string::npos) {
      // A path in proxy_pass replaces the location's.
      if (url.substr(slash) != argument_of(location, location.arguments.size() - 1))
        return left("paths are not rewritten");
      url = url.substr(0, slash);
    }
    std::string name = name_of(url);
    if (!into_.has("pools", name)) {
      Result<json> backend = backend_of(url, tls ? 443 : 80, 1);
      if (!backend) return left(backend.error().message);
      into_.object("pools", name)["backends"].push_back(*std::move(backend));
    }
    json& pool = into_.object("pools", name);
    if (tls) pool["tls"] = true;
    // nginx does not check the certificate unless it is told to.
    if (tls && pool.count("tls_verify") == 0) insecure_.insert(name);
    if (grpc) pool["protocol"] = "h2";
    into_.take();
    return name;
  }

  void answer(const Directive& directive, const Server& server, const std::string& path, const Directives& settings) {
    const std::optional<uint64_t> status = number_of(argument_of(directive));
    const std::string text = argument_of(directive, status ? 1 : 0);
    const bool redirects = !status || (*status >= 301 && *status <= 308 && *status != 304 && *status != 305);
    if (status && (*status < 200 || *status > 599)) return leave(directive, "this status cannot be an answer");
    std::string to = text;
    if (redirects) {
      for (const auto& [theirs, ours] :
           {std::pair("$request_uri", "{path}"), std::pair("$http_host", "{authority}"), std::pair("$host", "{host}"),
            std::pair("$uri", "{path}"), std::pair("$is_args$args", "")}) {
        for (size_t at = to.find(theirs); at != std::string::npos; at = to.find(theirs, at + 1))
          to.replace(at, std::string_view(theirs).size(), ours);
      }
      if (const size_t at = to.find("$server_name"); at != std::string::npos && server.hosts.size() == 1)
        to.replace(at, 12, server.hosts.front());
    }
    if (to.find('$') != std::string::npos) return leave(directive, "there are no variables");
    json* route = new_route(server, path);
    if (route == nullptr) return leave(directive, "another location takes these requests");
    into_.take();
    if (redirects) (*route)["redirect"] = to;
    if (status && (!redirects || *status != 302)) (*route)["status"] = *status;
    if (!redirects && !text.empty()) (*route)["body"] = text;
    apply(settings, {nullptr, route, &into_.node});
  }

  // The innermost directive of a name counts, and those of the same block.
  void apply(const Directives& settings, Target target) {
    std::map<std::string, const Directive*> innermost;
    for (const Directive* setting : settings) innermost[key_of(*setting)] = setting;
    for (const auto& [name, directive] : innermost) {
      if (directive->name == "add_header") {
        note(*directive, set_nginx_header(target, *directive, "response_headers"));
        continue;
      }
      const auto setting = nginx_proxy_settings().find(directive->name);
      if (setting != nginx_proxy_settings().end() && target.pool != nullptr)
        note(*directive, setting->second(target, *directive));
    }
  }
  static std::string key_of(const Directive& directive) {
    const bool by_field = directive.name.ends_with("_header") || directive.name == "proxy_cache_valid";
    return directive.name + (by_field ? " " + argument_of(directive) : "");
  }

  Imported& into_;
  std::set<std::string> routes_;    // what requests a route takes
  std::set<std::string> insecure_;  // pools
  Directives judged_late_;
  std::map<const Directive*, Result<void>> outcomes_;

 public:
  // nginx believes whoever answers unless it is told to check.
  void settle() {
    for (const std::string& name : insecure_) {
      json& pool = into_.object("pools", name);
      if (pool.count("tls_verify") == 0) pool["tls_verify"] = false;
    }
  }
};

}  // namespace

Result<void> import_nginx(std::string_view text, Imported& into) {
  Result<std::vector<Directive>> directives = parse_nginx(text);
  if (!directives) return directives.error();
  // A file of sites-enabled has no http block around it.
  const bool bare = std::any_of(directives->begin(), directives->end(),
                                [](const Directive& each) { return each.name == "server" || each.name == "upstream"; });
  NginxImport import(into);
  if (bare) {
    import.run_bare({"http", {}, *std::move(directives), true, 1});
  } else {
    import.run(*directives);
  }
  import.settle();
  return {};
}

}  // namespace tidegate::cli
