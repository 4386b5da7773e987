// SPDX-License-Identifier: Apache-2.0
#include "control/cli/import/gateway_matches.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "conf/limits.h"
#include "core/http1.h"
#include "core/regex.h"

namespace tidegate::cli {

using namespace kube;  // NOLINT(google-build-using-namespace): the helpers of this folder
using nlohmann::json;
using Kind = DocumentNode::Kind;

namespace {

Result<void> check_regex(const std::string& pattern) {
  const Result<Regex> regex = Regex::compile(pattern, kRegexMemoryBytes);
  if (!regex) return fail("RE2 does not take the regular expression: " + regex.error().message);
  return {};
}

// The ports for which a rule needs a route of its own; one of any kind if it needs none.
std::vector<uint16_t> ports_of(const GatewayPlace& place, const GatewayFilters& filters, bool tls) {
  if (!filters.depends_on_listener()) return tls ? std::vector<uint16_t>() : std::vector<uint16_t>{80};
  std::vector<uint16_t> ports;
  for (const GatewayListener* listener : place.listeners) {
    if (listener->tls == tls && std::find(ports.begin(), ports.end(), listener->port) == ports.end())
      ports.push_back(listener->port);
  }
  return ports;
}

// The names of the listeners at which a rule has this route.
std::vector<std::string> listeners_of(const GatewayPlace& place, const GatewayFilters& filters, bool tls,
                                      uint16_t port) {
  std::vector<std::string> names;
  for (const GatewayListener* listener : place.listeners) {
    if (filters.depends_on_listener() && (listener->tls != tls || listener->port != port)) continue;
    if (std::find(names.begin(), names.end(), listener->name) == names.end()) names.push_back(listener->name);
  }
  return names;
}

std::string dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

// Fields or parameters of a match.
Result<void> GatewayMatches::add_conditions(const DocumentNode* list, const std::string& kind, json& match) {
  std::set<std::string> names;
  for (const DocumentNode& each : items(list)) {
    const std::string type = text_at(&each, {"type"}), value = text_at(&each, {"value"});
    std::string name = text_at(&each, {"name"});
    if (kind == "headers") {
      std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    }
    const bool is_regex = type == "RegularExpression";
    if (!type.empty() && type != "Exact" && !is_regex) return fail(fmt::format("{} match no {}", kind, type));
    if (!http1::is_token(name)) return fail(fmt::format("a route cannot ask for this name of {}", kind));
    if (is_regex) {
      if (Result<void> checked = check_regex(value); !checked) return checked;
    }
    if (!names.insert(name).second) continue;         // the first of a name counts
    const bool word = value.empty() || value == "*";  // they mean something else in a route
    match[kind + (is_regex || word ? "_regex" : "")][name] = word && !is_regex ? quoted_regex(value) : value;
  }
  return {};
}

// The path of a match, as the path of a route and, where that cannot say it, as a condition.
Result<void> GatewayMatches::add_path(const DocumentNode* match, Entry& entry, std::string& prefix) {
  const std::string type = text_at(match, {"path", "type"});
  std::string path = text_at(match, {"path", "value"});
  if (path.empty()) path = "/";
  entry.path = "/*";
  if (type == "RegularExpression") {
    std::get<0>(entry.rank) = 1;
    if (Result<void> checked = check_regex(path); !checked) return checked;
    entry.when.match["path_regex"] = path;
    return {};
  }
  if (!type.empty() && type != "Exact" && type != "PathPrefix") return fail("there is no such match of a path");
  // An end slash of a prefix does not count.
  if (type != "Exact" && path.size() > 1 && path.ends_with('/')) path.pop_back();
  if (type != "Exact") prefix = path;
  const bool plain = path.front() == '/' && path.find_first_of("*{}?#%\\ ") == std::string::npos;
  if (!plain) {
    std::get<0>(entry.rank) = 1;
    entry.when.match["path_regex"] = quoted_regex(path) + (type == "Exact" ? "" : "(?:/.*)?");
    return {};
  }
  if (type != "Exact") path += path.ends_with('/') ? "*" : "/*";
  entry.path = path;
  return {};
}

void GatewayMatches::add(const DocumentNode* match, const DocumentNode& place, const GatewayRule& rule) {
  Entry entry;
  entry.name = rule.name;
  entry.line = place.line;
  json refused = rule.closed;
  Result<void> outcome;
  const auto refuse = [&](const std::string& why) {
    if (outcome) outcome = fail(why + "; it answers 500 instead");
    if (refused.is_null()) refused = closed_answer(kGatewayNotValid, place.line, "match of " + rule.name, why);
  };
  if (match != nullptr &&
      !read_only(
          into_, *match, "match",
          {{"path", Kind::map}, {"headers", Kind::list}, {"queryParams", Kind::list}, {"method", Kind::scalar}})) {
    refuse("what else it asks for is not taken");
  }
  json& conditions = entry.when.match;
  if (Result<void> added = add_conditions(at(match, {"headers"}), "headers", conditions); !added)
    refuse(added.error().message);
  if (Result<void> added = add_conditions(at(match, {"queryParams"}), "query", conditions); !added)
    refuse(added.error().message);
  std::string prefix;
  if (Result<void> added = add_path(match, entry, prefix); !added) refuse(added.error().message);
  const std::string method = text_at(match, {"method"});
  if (!method.empty()) entry.when.methods = {method};
  const auto count = [&](const char* exact, const char* regex) {
    return (conditions.contains(exact) ? conditions[exact].size() : 0) +
           (conditions.contains(regex) ? conditions[regex].size() : 0);
  };
  entry.rank = {std::get<0>(entry.rank), method.empty() ? 0 : 1, count("headers", "headers_regex"),
                count("query", "query_regex")};
  const GatewayRoute& route = rule.route;
  entry.age = {route.stamp.empty() ? "9999" : route.stamp, route.space + "/" + route.name, entries_.size()};
  for (const GatewayPlace& where : route.where) {
    for (const bool tls : {false, true}) {
      for (const uint16_t port : ports_of(where, rule.filters, tls)) {
        entry.listeners = listeners_of(where, rule.filters, tls, port);
        entry.hosts = where.hosts;
        entry.answer = refused.is_null() ? rule.answer : refused;
        if (refused.is_null() && !is_closed(rule.answer)) {
          if (Result<void> applied = rule.filters.apply(entry.answer, prefix, tls, port); !applied) {
            refuse(applied.error().message);
            entry.answer = refused;
          }
        }
        entries_.push_back(entry);
      }
    }
  }
  if (match != nullptr) into_.judge(place.line, "match of " + rule.name, outcome);
  if (match == nullptr && !outcome) into_.leave(place.line, "rule " + rule.name, outcome.error().message);
}

// The Gateway API's precedence of matches with one path: a method, then the most headers, then the most parameters,
// then the oldest, the first by name, and the first in the file. A regular expression of the path comes before the
// path that stands for all.
void GatewayMatches::make_routes() {
  std::map<std::string, std::vector<const Entry*>> by_path;
  for (const Entry& entry : entries_) by_path[entry.path].push_back(&entry);
  std::map<const Entry*, size_t> priorities;
  for (auto& [path, list] : by_path) {
    std::stable_sort(list.begin(), list.end(), [](const Entry* a, const Entry* b) {
      return a->rank != b->rank ? a->rank > b->rank : a->age < b->age;
    });
    std::set<std::string> taken, places;
    bool contested = false;
    for (const Entry* entry : list) {
      contested = contested || !entry->when.match.empty();
      for (const std::string& listener : entry->listeners) {
        for (const std::string& host : entry->hosts.empty() ? std::vector<std::string>{""} : entry->hosts)
          contested = !places.insert(listener + " " + host).second || contested;
      }
      const std::string key = fmt::format("{} {} {} {}", fmt::join(entry->listeners, ","), fmt::join(entry->hosts, ","),
                                          fmt::join(entry->when.methods, ","), dump(entry->when.match));
      if (!taken.insert(key).second) priorities[entry] = SIZE_MAX;
    }
    std::erase_if(list, [&](const Entry* entry) { return priorities.count(entry) != 0; });
    for (size_t i = 0; i < list.size() && contested; ++i) priorities[list[i]] = list.size() - 1 - i;
  }
  for (const Entry& entry : entries_) {
    const auto priority = priorities.find(&entry);
    if (priority != priorities.end() && priority->second == SIZE_MAX) continue;  // another takes these requests
    add_routes(into_, {entry.listeners, entry.hosts, entry.path, entry.name}, {{entry.when, entry.answer}},
               priority == priorities.end() ? 0 : priority->second);
  }
}

}  // namespace tidegate::cli
