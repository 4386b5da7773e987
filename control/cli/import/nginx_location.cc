// SPDX-License-Identifier: Apache-2.0
// A location of nginx: which requests it takes, and what becomes of them.
#include <algorithm>

#include "control/cli/import/nginx_import.h"
#include "control/cli/import/nginx_regex.h"
#include "control/cli/import/nginx_settings.h"

namespace tidegate::cli {

void NginxImport::location(const Directive& block, Server& server, const NginxScope& outer,
                           const NginxLocation* around) {
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
    if (is_of_listener(name) && list != outer.all(name))
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

Result<void> NginxImport::read_path(const Directive& block, NginxLocation& into) {
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

const NginxImport::Directive* NginxImport::child_of(const Directive& block,
                                                    std::initializer_list<std::string_view> names) {
  for (const Directive& child : block.block) {
    if (std::find(names.begin(), names.end(), child.name) != names.end()) return &child;
  }
  return nullptr;
}

Cases NginxImport::content(const Directive& block, Server& server, const NginxScope& scope, NginxLocation& here) {
  Conditions conditions;
  for (const Directive* each : ifs_of(block)) conditions.emplace_back(each, read_if(*each, server));
  return behind(conditions, bare_content(block, server, scope, here), server, scope);
}

Cases NginxImport::bare_content(const Directive& block, Server& server, const NginxScope& scope, NginxLocation& here) {
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

Cases NginxImport::limited(const Directive& except, const json& route, const NginxScope& scope, Cases cases,
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

const NginxImport::Directive* NginxImport::fallback_of(const Directive& block, Server& server) {
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

Result<nlohmann::json> NginxImport::passed(const Directive& directive, const Directive& location,
                                           const NginxScope& scope) {
  const Result<NginxUpstreamUrl> url = nginx_upstream_url(directive);
  if (!url) return url.error();
  json route = {{"pool", url->pool}};
  if (!url->path.empty()) {
    const std::string path = location.arguments.empty() ? "" : location.arguments.back();
    const bool plain = location.arguments.size() == 1 || argument_of(location) == "^~" || argument_of(location) == "=";
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

void NginxImport::apply(const NginxScope& scope, json* pool, json& route, const std::string& upstream) {
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

NginxQuestion NginxImport::question(const std::string& uri, const Server& server) {
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

nlohmann::json NginxImport::answer(const Directive& directive, const Server& server, const NginxScope& scope) {
  const auto [known, fresh] = answers_.emplace(&directive, json());
  if (!fresh) return known->second;
  Result<json> made = nginx_answer(directive, server.at->hosts);
  into_.judge(directive.line, directive.text(), made ? Result<void>() : made.error());
  json route = made ? *made : closed_answer(kClosed, directive.line, directive.text(), made.error().message);
  if (made) apply(scope, nullptr, route, "");
  return known->second = route;
}

}  // namespace tidegate::cli
