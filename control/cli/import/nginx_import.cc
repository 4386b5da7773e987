// SPDX-License-Identifier: Apache-2.0
// nginx's configuration as an edge. A server becomes routes with its names, a location becomes a route, an upstream or
// an address in proxy_pass becomes a pool. What protects and cannot be said closes the routes below it.

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "control/cli/import/imported.h"
#include "control/cli/import/nginx_listeners.h"
#include "control/cli/import/nginx_paths.h"
#include "control/cli/import/nginx_regex.h"
#include "control/cli/import/nginx_scope.h"
#include "control/cli/import/nginx_settings.h"
#include "control/cli/import/nginx_syntax.h"

namespace tidegate::cli {
namespace {

using nlohmann::json;
using Directive = NginxDirective;
using Directives = std::vector<const Directive*>;

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

class NginxImport {
 public:
  explicit NginxImport(Imported& into) : into_(into), listeners_(into) {}

  void run(const std::vector<Directive>& directives) {
    underscores_ = has_underscores(directives);
    for (const Directive& directive : directives) top(directive);
    settle();
  }
  // The content of an http block.
  void run_bare(const Directive& block) {
    underscores_ = has_underscores(block.block);
    http(block);
    settle();
  }

 private:
  // Whether a server reads fields whose names have underscores. It is a listener's, so it holds for all servers of one.
  static bool has_underscores(const std::vector<Directive>& directives) {
    return std::any_of(directives.begin(), directives.end(), [](const Directive& each) {
      return (each.name == "underscores_in_headers" && argument_of(each) == "on") || has_underscores(each.block);
    });
  }

  void settle() {
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

  void leave(const Directive& directive, const std::string& why) {
    into_.leave(directive.line, directive.text(), why);
    leave_block(directive, why);
  }
  void leave_block(const Directive& directive, const std::string& why) {
    for (const Directive& child : directive.block) leave(child, why);
  }

  // One taking is enough; the first reason to leave it is told.
  void note(const Directive& directive, const Result<void>& outcome) {
    const auto [known, fresh] = outcomes_.emplace(&directive, outcome);
    if (!fresh && outcome) known->second = outcome;
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

  void http(const Directive& block) {
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

  // The scope within a block. What stands for itself there is judged at once; blocks and content are the caller's.
  NginxScope entered(const NginxScope& outer, const Directive& block) {
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
                 kOfListener.count(name) != 0) {
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

  // Servers ---------------------------------------------------------------------------------------------------------

  struct Server {
    const NginxListening* at = nullptr;
    std::map<std::string, const Directive*> named;  // locations, by "@name"
    std::map<std::string, const Directive*> plain;  // the others, by path
    std::vector<NginxLocation> locations;
    json closed;  // null: what its locations say holds
  };

  void server(const Directive& block, const NginxScope& outer) {
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

  void add(const Server& server, const Cases& others, const Directive& block) {
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

  // At the server's names, or at any other. A host that a condition names has routes of its own: they are asked alone.
  void add_place(const Server& server, bool any, const std::string& path, const Cases& cases) {
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

  NginxNote noter() {
    return [this](const Directive& directive, const Result<void>& outcome) { note(directive, outcome); };
  }

  // Whose word on the client's address is taken. nginx reads X-Real-IP unless it is told another field.
  void add_trust(NginxScope& scope, const Server& server) {
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

  // Certificates of clients are a listener's: all servers of it have to want them.
  void verify_clients(const NginxScope& scope, Server& server) {
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

  void find_locations(const Directive& block, Server& server) {
    if (block.name != "location" || block.arguments.empty()) return;
    const std::string& path = block.arguments.back();
    (path.starts_with('@') ? server.named : server.plain).emplace(path, &block);
    for (const Directive& child : block.block) find_locations(child, server);
  }

  // Conditions ------------------------------------------------------------------------------------------------------

  static Directives ifs_of(const Directive& block) {
    Directives ifs;
    for (const Directive& child : block.block) {
      if (child.name == "if") ifs.push_back(&child);
    }
    return ifs;
  }

  // Error: it cannot be said. Then everything behind it is closed, unless it decides nothing.
  Result<NginxCondition> read_if(const Directive& directive, const Server& server) {
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

  using Conditions = std::vector<std::pair<const Directive*, Result<NginxCondition>>>;
  // The cases that are left for requests that come past the conditions.
  Cases behind(const Conditions& conditions, Cases cases, const Server& server, const NginxScope& scope) {
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

  std::vector<std::string> listeners_of(const Server& server, bool tls) {
    std::vector<std::string> out;
    for (const std::string& name : server.at->listeners) {
      if (into_.object("listeners", name).contains("tls") == tls) out.push_back(name);
    }
    return out;
  }

  // Locations -------------------------------------------------------------------------------------------------------

  void location(const Directive& block, Server& server, const NginxScope& outer, const NginxLocation* around) {
    const std::string path = block.arguments.empty() ? "" : block.arguments.back();
    if (path.starts_with('@')) return;
    NginxLocation here;
    const Result<void> readable = read_path(block, here);
    if (around != nullptr && around->kind == NginxLocation::Kind::regex) {
      server.closed = closed_answer(kClosed, block.line, block.text(), "a location in one of a regular expression");
      return leave(block, "a location in one of a regular expression is not taken; the server answers 403 instead");
    }
    if (!readable) {
      // Its requests would come to another location, which may let more of them in.
      server.closed = closed_answer(kClosed, block.line, block.text(), readable.error().message);
      return leave(block, readable.error().message + "; the server answers 403 instead");
    }
    if (around != nullptr) here.within = around->text;
    const bool twice = std::any_of(server.locations.begin(), server.locations.end(), [&](const NginxLocation& each) {
      return each.text == here.text && here.kind != NginxLocation::Kind::regex &&
             (each.kind == NginxLocation::Kind::exact) == (here.kind == NginxLocation::Kind::exact) &&
             each.kind != NginxLocation::Kind::regex;
    });
    if (twice) return leave(block, "another location takes these requests");
    const NginxScope scope = entered(outer, block);
    for (const auto& [name, list] : scope.of) {
      if (kOfListener.count(name) != 0 && list != outer.all(name))
        for (const Directive* each : list) note(*each, fail("a listener has it, not a route"));
    }
    here.cases = content(block, server, scope, here);
    for (const Directive& child : block.block) {
      if (child.name == "location") here.has_regexes = here.has_regexes || argument_of(child).starts_with('~');
    }
    server.locations.push_back(here);
    for (const Directive& child : block.block) {
      if (child.name == "location") location(child, server, scope, &here);
    }
  }

  static Result<void> read_path(const Directive& block, NginxLocation& into) {
    using Kind = NginxLocation::Kind;
    const std::string modifier = block.arguments.size() > 1 ? argument_of(block) : "";
    std::string path = block.arguments.empty() ? "" : block.arguments.back();
    if (modifier.starts_with('~')) {
      const Result<std::string> regex = nginx_path_regex(path, modifier == "~*");
      if (!regex) return regex.error();
      into.kind = Kind::regex;
      into.text = *regex;
      return {};
    }
    into.kind = modifier == "=" ? Kind::exact : modifier == "^~" ? Kind::first_prefix : Kind::prefix;
    if (path.empty() || path.front() != '/' || path.find("//") != std::string::npos ||
        std::any_of(path.begin(), path.end(), [](unsigned char c) {
          return c <= ' ' || c >= 0x7f ||
                 std::string_view("*{}?#%\"<>\\^`|").find(static_cast<char>(c)) != std::string_view::npos;
        })) {
      return fail("the path has characters that a route's path cannot have");
    }
    into.text = path;
    return {};
  }

  const Directive* child_of(const Directive& block, std::initializer_list<std::string_view> names) {
    for (const Directive& child : block.block) {
      if (std::find(names.begin(), names.end(), child.name) != names.end()) return &child;
    }
    return nullptr;
  }

  Cases content(const Directive& block, Server& server, const NginxScope& scope, NginxLocation& here) {
    Conditions conditions;
    for (const Directive* each : ifs_of(block)) conditions.emplace_back(each, read_if(*each, server));
    return behind(conditions, bare_content(block, server, scope, here), server, scope);
  }

  Cases bare_content(const Directive& block, Server& server, const NginxScope& scope, NginxLocation& here) {
    const Directive* returns = child_of(block, {"return"});
    const Directive* passes = child_of(block, {"proxy_pass", "grpc_pass"});
    const Directive* internal = child_of(block, {"internal"});
    const Directive* except = child_of(block, {"limit_except"});
    const auto not_served = [&](const std::string& why) -> Cases {
      into_.leave(block.line, block.text(), why);
      for (const Directive* each : {passes, except}) {
        if (each != nullptr) leave(*each, why);
      }
      return {{{}, closed_answer(kNotServed, block.line, block.text(), why)}};
    };
    if (internal != nullptr) {
      into_.take();
      into_.take();
      for (const Directive* each : {returns, passes, except}) {
        if (each == nullptr) continue;
        judged_late_.push_back(each);
        leave_block(*each, "no client reaches the location");
      }
      return {{{}, {{"status", 404}}}};
    }
    if (returns != nullptr) {
      into_.take();
      for (const Directive* each : {passes, except}) {
        if (each != nullptr) leave(*each, "the location returns before");
      }
      return {{{}, answer(*returns, server, scope)}};
    }
    if (passes == nullptr && nginx_denies_all(scope)) {
      into_.take();
      for (const Directive* each : scope.all("access")) note(*each, {});
      if (except != nullptr) leave(*except, "the location refuses every request");
      return {{{}, {{"status", kClosed}}}};
    }
    if (passes == nullptr) passes = fallback_of(block, server);
    if (passes == nullptr) {
      const bool files = child_of(block, {"root", "alias", "try_files"}) != nullptr;
      return not_served(files ? "no files are served" : "it neither passes requests on nor answers them");
    }
    const Result<json> route = passed(*passes, block, scope);
    if (!route) return not_served("its requests have no pool: " + route.error().message);
    into_.take();
    if (used_.insert(passes).second) into_.take();
    here.passes = true;
    const auto ask = [&](const std::string& uri) { return question(uri, server); };
    Cases cases = nginx_guarded(scope, *route, into_, ask, noter());
    return except == nullptr ? cases : limited(*except, *route, scope, std::move(cases), ask);
  }

  // `limit_except GET { deny all; }`: what is inside is for other methods.
  Cases limited(const Directive& except, const json& route, const NginxScope& scope, Cases cases,
                const std::function<NginxQuestion(const std::string&)>& ask) {
    When when;
    when.methods = except.arguments;
    const NginxScope inside = entered(scope, except);
    Cases others = nginx_guarded(inside, route, into_, ask, noter());
    const Result<Cases> some = narrowed(cases, when);
    if (!some || when.methods.empty()) {
      leave(except, "two conditions about methods; the route answers 403 instead");
      return {{{}, closed_answer(kClosed, except.line, except.text(), "two conditions about methods")}};
    }
    into_.take();
    others.insert(others.begin(), some->begin(), some->end());
    return others;
  }

  // `try_files $uri @app;`: there are no files, so the last word counts.
  const Directive* fallback_of(const Directive& block, Server& server) {
    const Directive* tries = child_of(block, {"try_files"});
    if (tries == nullptr || tries->arguments.empty()) return nullptr;
    const auto named = server.named.find(tries->arguments.back());
    if (named == server.named.end()) return nullptr;
    const Directive& target = *named->second;
    const Directive* passes = child_of(target, {"proxy_pass", "grpc_pass"});
    // What else stands there would count too.
    if (passes == nullptr || std::any_of(target.block.begin(), target.block.end(), [&](const Directive& child) {
          return &child != passes && !nginx_holds(child.name);
        })) {
      return nullptr;
    }
    if (used_.insert(&target).second) {
      for (size_t i = 0; i < target.block.size(); ++i) into_.take();  // the block, and all in it but proxy_pass
    }
    return passes;
  }

  // The route to the pool of proxy_pass, with what the scope says about it.
  Result<json> passed(const Directive& directive, const Directive& location, const NginxScope& scope) {
    const Result<NginxUpstreamUrl> url = nginx_upstream_url(directive);
    if (!url) return url.error();
    json route = {{"pool", url->pool}};
    if (!url->path.empty()) {
      const std::string path = location.arguments.empty() ? "" : location.arguments.back();
      const bool plain =
          location.arguments.size() == 1 || argument_of(location) == "^~" || argument_of(location) == "=";
      if (!plain || path.ends_with('/') != url->path.ends_with('/') ||
          url->path.find_first_of("?{}#% ") != std::string::npos)
        return fail("a path is replaced by whole segments");
      if (path != url->path) {
        json change = {{"value", url->path}};
        if (path != "/") change["prefix"] = path.ends_with('/') ? path.substr(0, path.size() - 1) : path;
        if (path == "/") change["match"] = "^/";
        if (argument_of(location) == "=" && location.arguments.size() > 1) change = {{"value", url->path}};
        route["policies"].push_back(into_.policy("path", {{"transform", {{"path", change}}}}));
      }
    }
    if (!into_.has("pools", url->pool)) {
      Result<json> backend = backend_of(url->host, url->tls ? 443 : 80, 1);
      if (!backend) return backend.error();
      into_.object("pools", url->pool)["backends"].push_back(*std::move(backend));
    }
    json& pool = into_.object("pools", url->pool);
    if (url->tls) pool["tls"] = true;
    if (url->tls && pool.count("tls_verify") == 0) insecure_.insert(url->pool);
    if (url->grpc) pool["protocol"] = "h2";
    apply(scope, &pool, route, url->host);
    return route;
  }

  void apply(const NginxScope& scope, json* pool, json& route, const std::string& upstream) {
    NginxTarget target{pool, &route, &into_.node, &into_};
    bool host = false;
    for (const auto& [name, list] : scope.of) {
      const auto setting = nginx_proxy_settings().find(name);
      for (const Directive* each : list) {
        if (name == "add_header") {
          note(*each, set_nginx_header(target, *each, "response_headers"));
        } else if (setting != nginx_proxy_settings().end() && pool != nullptr) {
          note(*each, setting->second(target, *each));
          host = host || (name.ends_with("_set_header") && nginx_is_host(argument_of(*each)));
        }
      }
    }
    target.finish();
    // nginx names the upstream to it unless it is told another host.
    if (pool != nullptr && !host) route["request_headers"]["host"] = upstream;
  }

  // What auth_request asks: the backend of its location, and nothing of its own.
  NginxQuestion question(const std::string& uri, const Server& server) {
    const auto found = server.plain.find(uri);
    if (found == server.plain.end()) return {};
    const Directive* passes = child_of(*found->second, {"proxy_pass"});
    static const std::set<std::string> kPlain = {"proxy_pass_request_body", "internal", "proxy_pass"};
    for (const Directive& child : found->second->block) {
      const bool length = child.name == "proxy_set_header" && argument_of(child) == "Content-Length";
      if (kPlain.count(child.name) == 0 && !length && !nginx_holds(child.name)) return {};
    }
    if (passes == nullptr) return {};
    const Result<NginxUpstreamUrl> url = nginx_upstream_url(*passes);
    if (!url || url->tls || url->grpc) return {};
    // The pool is made as for a location; what else the route has is not asked for.
    if (!into_.has("pools", url->pool) && !passed(*passes, Directive{"location", {url->path}, {}, true, 0}, {}))
      return {};
    for (const Directive& child : found->second->block) note(child, {});
    return {url->pool, url->path.empty() ? uri : url->path};
  }

  // What `return` answers. What it cannot say refuses.
  json answer(const Directive& directive, const Server& server, const NginxScope& scope) {
    const auto [known, fresh] = answers_.emplace(&directive, json());
    if (!fresh) return known->second;
    Result<json> made = nginx_answer(directive, server.at->hosts);
    into_.judge(directive.line, directive.text(), made ? Result<void>() : made.error());
    json route = made ? *made : closed_answer(kClosed, directive.line, directive.text(), made.error().message);
    if (made) apply(scope, nullptr, route, "");
    return known->second = route;
  }

  Imported& into_;
  NginxListeners listeners_;
  bool underscores_ = false;
  std::set<std::string> insecure_;  // pools
  Directives judged_late_;
  std::map<const Directive*, Result<void>> outcomes_;
  std::map<const Directive*, json> answers_;  // of return
  std::set<const Directive*> used_;           // named locations, and what passes requests on
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
    const Directive http{"http", {}, *std::move(directives), true, 1};
    import.run_bare(http);
  } else {
    import.run(*directives);
  }
  return {};
}

}  // namespace tidegate::cli
