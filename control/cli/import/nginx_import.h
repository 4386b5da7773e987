// SPDX-License-Identifier: Apache-2.0
// nginx's configuration as an edge. A server becomes routes with its names, a location becomes a route, an upstream or
// an address in proxy_pass becomes a pool. What protects and cannot be said closes the routes below it.
#pragma once

#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "control/cli/import/cases.h"
#include "control/cli/import/imported.h"
#include "control/cli/import/nginx_listeners.h"
#include "control/cli/import/nginx_paths.h"
#include "control/cli/import/nginx_scope.h"
#include "control/cli/import/nginx_syntax.h"

namespace tidegate::cli {

// One reading of a file. The directives must outlive it.
class NginxImport {
 public:
  explicit NginxImport(Imported& into) : into_(into), listeners_(into) {}
  void run(const std::vector<NginxDirective>& directives);
  // The content of an http block.
  void run_bare(const NginxDirective& block);

 private:
  using json = nlohmann::json;
  using Directive = NginxDirective;
  using Directives = std::vector<const Directive*>;

  // Whether a server reads fields whose names have underscores. It is a listener's, so it holds for all servers of one.
  static bool has_underscores(const std::vector<NginxDirective>& directives);
  // Judges what could be judged only after the whole file was read.
  void settle();
  // Says that a directive is not taken, and why. The same for all in its block.
  void leave(const Directive& directive, const std::string& why);
  void leave_block(const Directive& directive, const std::string& why);
  // A directive can be read for several routes. It counts as taken if one of them takes it. Otherwise the first reason
  // is told.
  void note(const Directive& directive, const Result<void>& outcome);
  // Directives that mean the same wherever they stand. Returns whether this was one.
  bool common(const Directive& directive);
  void top(const Directive& directive);
  void http(const Directive& block);
  // Whether a server says it for the connections to it.
  static bool is_of_listener(const std::string& name);
  // The scope within a block. What stands for itself there is judged at once; blocks and content are the caller's.
  NginxScope entered(const NginxScope& outer, const Directive& block);
  Result<void> cache_path(const Directive& directive);
  void upstream(const Directive& block);

  // Servers ---------------------------------------------------------------------------------------------------------
  struct Server {
    const NginxListening* at = nullptr;
    std::map<std::string, const Directive*> named;  // locations, by "@name"
    std::map<std::string, const Directive*> plain;  // the others, by path
    std::vector<NginxLocation> locations;
    json closed;  // null: what its locations say holds
  };
  void server(const Directive& block, const NginxScope& outer);
  void add(const Server& server, const Cases& others, const Directive& block);
  // At the server's names, or at any other. A host that a condition names has routes of its own: they are asked alone.
  void add_place(const Server& server, bool any, const std::string& path, const Cases& cases);
  NginxNote noter();
  // Whose word on the client's address is taken. nginx reads X-Real-IP unless it is told another field.
  void add_trust(NginxScope& scope, const Server& server);
  // Certificates of clients are a listener's: all servers of it have to want them.
  void verify_clients(const NginxScope& scope, Server& server);
  void find_locations(const Directive& block, Server& server);

  // Conditions ------------------------------------------------------------------------------------------------------
  static Directives ifs_of(const Directive& block);
  // Error: it cannot be said. Then everything behind it is closed, unless it decides nothing.
  Result<NginxCondition> read_if(const Directive& directive, const Server& server);
  using Conditions = std::vector<std::pair<const Directive*, Result<NginxCondition>>>;
  // The cases that are left for requests that come past the conditions.
  Cases behind(const Conditions& conditions, Cases cases, const Server& server, const NginxScope& scope);
  std::vector<std::string> listeners_of(const Server& server, bool tls);

  // Locations -------------------------------------------------------------------------------------------------------
  void location(const Directive& block, Server& server, const NginxScope& outer, const NginxLocation* around);
  static Result<void> read_path(const Directive& block, NginxLocation& into);
  const Directive* child_of(const Directive& block, std::initializer_list<std::string_view> names);
  Cases content(const Directive& block, Server& server, const NginxScope& scope, NginxLocation& here);
  Cases bare_content(const Directive& block, Server& server, const NginxScope& scope, NginxLocation& here);
  // `limit_except GET { deny all; }`: what is inside is for other methods.
  Cases limited(const Directive& except, const json& route, const NginxScope& scope, Cases cases,
                const std::function<NginxQuestion(const std::string&)>& ask);
  // `try_files $uri @app;`: there are no files, so the last word counts.
  const Directive* fallback_of(const Directive& block, Server& server);
  // The route to the pool of proxy_pass, with what the scope says about it.
  Result<json> passed(const Directive& directive, const Directive& location, const NginxScope& scope);
  void apply(const NginxScope& scope, json* pool, json& route, const std::string& upstream);
  // What auth_request asks: the backend of its location, and nothing of its own.
  NginxQuestion question(const std::string& uri, const Server& server);
  // What `return` answers. What it cannot say refuses.
  json answer(const Directive& directive, const Server& server, const NginxScope& scope);

  Imported& into_;
  NginxListeners listeners_;
  bool underscores_ = false;
  std::set<std::string> insecure_;  // pools
  Directives judged_late_;
  std::map<const Directive*, Result<void>> outcomes_;
  std::map<const Directive*, json> answers_;  // of return
  std::set<const Directive*> used_;           // named locations, and what passes requests on
};

}  // namespace tidegate::cli
