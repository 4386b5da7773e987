// SPDX-License-Identifier: Apache-2.0
// The file as a whole: its http block, upstreams, and the scope that each block has.
#include "control/cli/import/nginx_import.h"

#include <algorithm>

#include "control/cli/import/nginx_settings.h"

namespace tidegate::cli {

namespace {

// What a server says for the connections to it.
const std::set<std::string> kOfListener = {"client_max_body_size",
                                           "client_header_timeout",
                                           "client_body_timeout",
                                           "keepalive_timeout",
                                           "ssl_protocols",
                                           "set_real_ip_from",
                                           "real_ip_header",
                                           "large_client_header_buffers",
                                           "underscores_in_headers",
                                           "merge_slashes",
                                           "ssl_client_certificate",
                                           "ssl_verify_client",
                                           "ssl_crl"};

}  // namespace

bool NginxImport::is_of_listener(const std::string& name) { return kOfListener.count(name) != 0; }

void NginxImport::run(const std::vector<Directive>& directives) {
  underscores_ = has_underscores(directives);
  for (const Directive& directive : directives) top(directive);
  settle();
}

void NginxImport::run_bare(const Directive& block) {
  underscores_ = has_underscores(block.block);
  http(block);
  settle();
}

bool NginxImport::has_underscores(const std::vector<Directive>& directives) {
  return std::any_of(directives.begin(), directives.end(), [](const Directive& each) {
    return (each.name == "underscores_in_headers" && argument_of(each) == "on") || has_underscores(each.block);
  });
}

void NginxImport::settle() {
  for (const Directive* directive : judged_late_) {
    const auto outcome = outcomes_.find(directive);
    into_.judge(directive->line, directive->text(),
                outcome == outcomes_.end() ? fail("no request goes to a backend below it") : outcome->second);
  }
  // nginx believes whoever answers unless it is told to check.
  for (const std::string& name : insecure_) {
    json& pool = into_.object("pools", name);
    if (pool.count("tls_verify") == 0) pool["tls_verify"] = false;
  }
}

void NginxImport::leave(const Directive& directive, const std::string& why) {
  into_.leave(directive.line, directive.text(), why);
  leave_block(directive, why);
}

void NginxImport::leave_block(const Directive& directive, const std::string& why) {
  for (const Directive& child : directive.block) leave(child, why);
}

void NginxImport::note(const Directive& directive, const Result<void>& outcome) {
  const auto [known, fresh] = outcomes_.emplace(&directive, outcome);
  if (!fresh && outcome) known->second = outcome;
}

bool NginxImport::common(const Directive& directive) {
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

void NginxImport::top(const Directive& directive) {
  if (directive.name == "http") {
    into_.take();
    http(directive);
  } else if (directive.name == "worker_processes") {
    const std::string count = argument_of(directive);
    const std::optional<uint64_t> workers = number_of(count);
    if (count == "auto") into_.node["l7"]["workers"] = count;
    if (workers) into_.node["l7"]["workers"] = *workers;
    into_.judge(directive.line, directive.text(),
                workers || count == "auto" ? Result<void>() : fail("it is neither a number nor auto"));
  } else if (!common(directive)) {
    leave(directive, why_nginx_left(directive.name));
  }
}

void NginxImport::http(const Directive& block) {
  for (const Directive& child : block.block) {
    if (child.name == "upstream") upstream(child);
  }
  const NginxScope scope = entered({}, block);
  Directives servers;
  for (const Directive& child : block.block) {
    if (child.name == "server") servers.push_back(&child);
  }
  listeners_.read(servers, scope.one("ssl_certificate"), scope.one("ssl_certificate_key"));
  for (const Directive* each : servers) server(*each, scope);
}

NginxScope NginxImport::entered(const NginxScope& outer, const Directive& block) {
  static const std::set<std::string> kElsewhere = {
      "upstream", "server",          "location",           "listen", "server_name",
      "return",   "proxy_pass",      "grpc_pass",          "if",     "limit_except",
      "internal", "ssl_certificate", "ssl_certificate_key"};
  NginxScope scope = outer;
  std::set<std::string> here;
  for (const Directive& child : block.block) {
    const std::string& name = child.name;
    if (name == "ssl_certificate" || name == "ssl_certificate_key") {
      scope.of[name] = {&child};
    } else if (kElsewhere.count(name) != 0) {
      continue;
    } else if (nginx_guards(child)) {
      scope.guards.push_back(&child);
      judged_late_.push_back(&child);
      leave_block(child, why_nginx_left(name));
    } else if (nginx_proxy_settings().count(name) != 0 || name == "add_header" || nginx_is_access(name) ||
               is_of_listener(name)) {
      Directives& list = scope.of[nginx_list_of(name)];
      if (here.insert(nginx_list_of(name)).second) list.clear();
      list.push_back(&child);
      judged_late_.push_back(&child);
    } else if (name == "proxy_cache_path") {
      into_.judge(child.line, child.text(), cache_path(child));
    } else if (name == "include" && block.name != "http" && !nginx_include_is_known(argument_of(child))) {
      scope.guards.push_back(&child);
      judged_late_.push_back(&child);
    } else if (!common(child)) {
      leave(child, why_nginx_left(name));
    }
  }
  return scope;
}

Result<void> NginxImport::cache_path(const Directive& directive) {
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

void NginxImport::upstream(const Directive& block) {
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

Result<void> import_nginx(std::string_view text, Imported& into) {
  Result<std::vector<NginxDirective>> directives = parse_nginx(text);
  if (!directives) return directives.error();
  // A file of sites-enabled has no http block around it.
  const bool bare = std::any_of(directives->begin(), directives->end(), [](const NginxDirective& each) {
    return each.name == "server" || each.name == "upstream";
  });
  NginxImport import(into);
  if (bare) {
    const NginxDirective http{"http", {}, *std::move(directives), true, 1};
    import.run_bare(http);
  } else {
    import.run(*directives);
  }
  return {};
}

}  // namespace tidegate::cli
