// SPDX-License-Identifier: Apache-2.0
// A server of nginx: its listeners, the conditions in front of its locations, and its routes.
#include <algorithm>

#include "control/cli/import/nginx_import.h"
#include "control/cli/import/nginx_settings.h"

namespace tidegate::cli {

void NginxImport::server(const Directive& block, const NginxScope& outer) {
  Server server;
  server.at = &listeners_.of(block);
  NginxScope scope = entered(outer, block);
  if (server.at->listeners.empty() || (server.at->hosts.empty() && !server.at->any_host)) {
    const std::string why = "none of its addresses or names is taken";
    into_.leave(block.line, block.text(), why);
    for (const Directive& child : block.block) {
      if (child.name == "location" || child.name == "if" || child.name == "return") leave(child, why);
    }
    return;
  }
  into_.take();
  for (const std::string& name : server.at->listeners) {
    for (const auto& [key, list] : scope.of) {
      for (const Directive* setting : list) set_nginx_listener(*setting, into_.object("listeners", name), noter());
    }
  }
  add_trust(scope, server);
  verify_clients(scope, server);
  for (const Directive& child : block.block) find_locations(child, server);
  Cases others = {{{}, {{"status", 404}}}};
  const Directive* returns = nullptr;
  for (const Directive& child : block.block) {
    if (child.name == "return" && returns == nullptr) returns = &child;
    if (child.name == "proxy_pass" || child.name == "grpc_pass") leave(child, "it belongs into a location");
  }
  if (returns != nullptr) {
    others = {{{}, answer(*returns, server, scope)}};
    for (const Directive& child : block.block) {
      if (child.name == "location" || (child.name == "return" && &child != returns))
        leave(child, "the server returns before");
    }
  } else {
    for (const Directive& child : block.block) {
      if (child.name == "location") location(child, server, scope, nullptr);
    }
    for (const auto& [name, named] : server.named) {
      if (used_.count(named) == 0) leave(*named, "no location falls back to it");
    }
  }
  const Directives ifs = ifs_of(block);
  std::vector<std::pair<const Directive*, Result<NginxCondition>>> conditions;
  for (const Directive* each : ifs) conditions.emplace_back(each, read_if(*each, server));
  for (NginxLocation& each : server.locations) each.cases = behind(conditions, std::move(each.cases), server, scope);
  others = behind(conditions, std::move(others), server, scope);
  if (!server.closed.is_null()) {
    server.locations.clear();
    others = {{{}, server.closed}};
  }
  add(server, others, block);
}

void NginxImport::add(const Server& server, const Cases& others, const Directive& block) {
  std::map<std::string, Cases> paths = nginx_paths(server.locations, others);
  if (paths.empty()) {
    const std::string why = "its locations and conditions would be too many routes";
    into_.leave(block.line, block.text(), why);
    paths["/*"] = {{{}, closed_answer(kNotServed, block.line, block.text(), why)}};
  }
  for (const bool any : {false, true}) {
    if (any ? !server.at->any_host : server.at->hosts.empty()) continue;
    for (const auto& [path, cases] : paths) add_place(server, any, path, cases);
  }
}

void NginxImport::add_place(const Server& server, bool any, const std::string& path, const Cases& cases) {
  const std::vector<std::string>& names = server.at->hosts;
  std::vector<std::string> hosts = any ? std::vector<std::string>() : names;
  const std::string name = any ? "any" : names.front();
  const std::map<std::string, Cases> by = by_host(cases);
  for (const auto& [host, here] : by) {
    const bool own = std::any_of(names.begin(), names.end(),
                                 [&, &asked = host](const auto& each) { return host_covers(each, asked); });
    if (host.empty() || own == any) continue;
    std::erase(hosts, host);
    add_routes(into_, {server.at->listeners, {host}, path, host + path}, here);
  }
  if (any || !hosts.empty()) add_routes(into_, {server.at->listeners, hosts, path, name + path}, by.at(""));
}

NginxNote NginxImport::noter() {
  return [this](const Directive& directive, const Result<void>& outcome) { note(directive, outcome); };
}

void NginxImport::add_trust(NginxScope& scope, const Server& server) {
  const Directive* field = scope.one("real_ip_header");
  const bool known = field != nullptr && argument_of(*field) == "X-Forwarded-For";
  for (const Directive* from : scope.all("set_real_ip_from")) {
    if (!known) {
      note(*from, fail("the client's address is read from X-Forwarded-For alone"));
      scope.of["real address"] = {from};
      continue;
    }
    for (const std::string& name : server.at->listeners)
      note(*from, set_nginx_trust(argument_of(*from), into_.object("listeners", name)));
  }
  if (field != nullptr)
    note(*field, known ? Result<void>() : fail("the client's address is read from X-Forwarded-For"));
}

void NginxImport::verify_clients(const NginxScope& scope, Server& server) {
  const Directive* verify = scope.one("ssl_verify_client");
  const Directive* authority = scope.one("ssl_client_certificate");
  const Directive* list = scope.one("ssl_crl");
  const std::string how = verify == nullptr ? "off" : argument_of(*verify);
  if (how == "off") {
    for (const Directive* each : {verify, authority, list}) {
      if (each != nullptr) note(*each, {});
    }
    return;
  }
  const bool alone = server.at->alone && server.at->tls && authority != nullptr && how != "optional_no_ca";
  const Result<void> outcome =
      alone ? Result<void>() : fail("clients show certificates to a listener: to all of its servers, and by TLS");
  for (const Directive* each : {verify, authority, list}) {
    if (each != nullptr) note(*each, outcome);
  }
  if (!alone) {
    server.closed = closed_answer(kClosed, verify->line, verify->text(), outcome.error().message);
    return;
  }
  for (const std::string& name : server.at->listeners) {
    json& listener = into_.object("listeners", name);
    if (!listener.contains("tls")) continue;
    json& clients = listener["tls"]["client_certificates"];
    clients["ca_file"] = argument_of(*authority);
    if (list != nullptr) clients["crl_file"] = argument_of(*list);
    if (how == "optional") clients["optional"] = true;
  }
}

void NginxImport::find_locations(const Directive& block, Server& server) {
  if (block.name != "location" || block.arguments.empty()) return;
  const std::string& path = block.arguments.back();
  (path.starts_with('@') ? server.named : server.plain).emplace(path, &block);
  for (const Directive& child : block.block) find_locations(child, server);
}

NginxImport::Directives NginxImport::ifs_of(const Directive& block) {
  Directives ifs;
  for (const Directive& child : block.block) {
    if (child.name == "if") ifs.push_back(&child);
  }
  return ifs;
}

Result<NginxCondition> NginxImport::read_if(const Directive& directive, const Server& server) {
  const auto returns = std::find_if(directive.block.begin(), directive.block.end(),
                                    [](const Directive& child) { return child.name == "return"; });
  Result<NginxCondition> condition = returns == directive.block.end()
                                         ? fail("a route says what to answer, nothing else")
                                         : nginx_condition(directive, underscores_);
  if (condition && !condition->never && !condition->when.hosts.empty()) {
    const std::optional<bool> reached = listeners_.reaches(*server.at, condition->when.hosts.front());
    if (reached) condition->never = !*reached;
    if (!reached) condition = fail("another server has this host at some of the addresses");
  }
  if (condition) {
    into_.take();
    for (const Directive& child : directive.block) {
      if (&child != &*returns) leave(child, "the condition returns");
    }
  } else {
    const std::string why = condition.error().message;
    leave(directive, nginx_is_harmless(directive) ? why : why + "; its routes answer 403 instead");
  }
  return condition;
}

Cases NginxImport::behind(const Conditions& conditions, Cases cases, const Server& server, const NginxScope& scope) {
  for (size_t i = conditions.size(); i-- > 0;) {
    const auto& [directive, condition] = conditions[i];
    if (!condition) {
      if (!nginx_is_harmless(*directive))
        cases = {{{}, closed_answer(kClosed, directive->line, directive->text(), condition.error().message)}};
      continue;
    }
    const auto returns = std::find_if(directive->block.begin(), directive->block.end(),
                                      [](const Directive& child) { return child.name == "return"; });
    const json then = answer(*returns, server, scope);
    When when = condition->when;
    if (!condition->scheme.empty()) when.listeners = listeners_of(server, condition->scheme == "https");
    const bool never = condition->never || (!condition->scheme.empty() && when.listeners.empty());
    if (never) {
      if (condition->negative) cases = {{{}, then}};
    } else if (!condition->negative) {
      cases = if_has(when, then, std::move(cases));
    } else if (Result<Cases> other = if_has_not(when, then, cases)) {
      cases = *std::move(other);
    } else {
      cases = {{{}, closed_answer(kClosed, directive->line, directive->text(), other.error().message)}};
    }
  }
  return cases;
}

std::vector<std::string> NginxImport::listeners_of(const Server& server, bool tls) {
  std::vector<std::string> out;
  for (const std::string& name : server.at->listeners) {
    if (into_.object("listeners", name).contains("tls") == tls) out.push_back(name);
  }
  return out;
}

}  // namespace tidegate::cli
