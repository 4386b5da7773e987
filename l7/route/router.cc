// SPDX-License-Identifier: Apache-2.0
#include "l7/route/router.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "l7/route/route_parts.h"

namespace tidegate::l7 {

std::string_view RouteParameters::find(std::string_view name) const {
  for (size_t i = 0; i < count; ++i) {
    if (items[i].first == name) return items[i].second;
  }
  return {};
}

// The trie while it is built. Each node has its own list of routes.
struct Router::Builder {
  struct Routes {
    std::vector<uint32_t> ends, rests;
  };

  Builder(const Model& of_model, const HashKey& key) : model(of_model), tries(std::make_shared<Tries>(key)) {
    tries->parameter_names.resize(model.routes.size());
    const bool any_regex =
        std::any_of(model.routes.begin(), model.routes.end(), [](const Route& each) { return each.match.has_regex(); });
    if (any_regex) tries->patterns.resize(model.routes.size());
    for (uint32_t route = 0; route < model.routes.size(); ++route) add(route);
    lay_flat();
  }

  void add(uint32_t route_index) {
    const Route& route = model.routes[route_index];
    Result<RouteParts> parts = parts_of(route);
    if (!parts) {
      if (tries->fault.empty()) tries->fault = fmt::format("route {}: {}", route.name, parts.error().message);
      return;
    }
    for (const PathSegment& segment : parts->path.segments) {
      if (segment.kind == PathSegment::Kind::parameter) tries->parameter_names[route_index].push_back(segment.text);
    }
    for (const std::string& host : parts->hosts) add_to(trie_of(host), parts->path, route_index);
    if (parts->patterns) tries->patterns[route_index] = std::move(parts->patterns);
  }

  void add_to(uint32_t node, const PathPattern& pattern, uint32_t route) {
    bool rest = false;
    for (const PathSegment& segment : pattern.segments) {
      if (segment.kind == PathSegment::Kind::rest) {
        rest = true;
      } else {
        node = segment.kind == PathSegment::Kind::literal ? literal_child_of(node, segment.text)
                                                          : parameter_child_of(node);
      }
    }
    (rest ? routes[node].rests : routes[node].ends).push_back(route);
  }

  uint32_t new_node() {
    tries->nodes.emplace_back();
    routes.emplace_back();
    return static_cast<uint32_t>(routes.size() - 1);
  }

  uint32_t trie_of(const std::string& host_pattern) {
    const uint32_t known = tries->hosts.find(0, host_pattern);
    if (known != kNoNode) return known;
    if (host_pattern.starts_with("*.")) tries->any_wildcard = true;
    const uint32_t root = new_node();
    tries->hosts.add(0, host_pattern, root);
    return root;
  }

  uint32_t literal_child_of(uint32_t node, const std::string& literal) {
    const uint32_t known = tries->literals.find(node, literal);
    if (known != kNoNode) return known;
    const uint32_t child = new_node();
    tries->literals.add(node, literal, child);
    return child;
  }

  uint32_t parameter_child_of(uint32_t node) {
    if (tries->nodes[node].parameter_child == kNoNode) {
      const uint32_t child = new_node();
      tries->nodes[node].parameter_child = child;
    }
    return tries->nodes[node].parameter_child;
  }

  void lay_flat() {
    for (size_t node = 0; node < routes.size(); ++node) {
      tries->nodes[node].first_end = append(routes[node].ends);
      tries->nodes[node].first_rest = append(routes[node].rests);
      tries->nodes[node].last = static_cast<uint32_t>(tries->ends.size());
    }
  }

  // If several routes end at one place, they differ in priority, conditions, listeners or methods. The more restricted
  // one is asked first.
  uint32_t append(std::vector<uint32_t>& added) {
    const Elements<Route>& all = model.routes;
    std::stable_sort(added.begin(), added.end(), [&](uint32_t a, uint32_t b) {
      const Route &left = all[a], &right = all[b];
      if (const auto order = compare_rank(left, right); order != 0) return order > 0;
      if (left.methods.empty() != right.methods.empty()) return !left.methods.empty();
      return !left.listeners.empty() && right.listeners.empty();
    });
    const auto first = static_cast<uint32_t>(tries->ends.size());
    for (const uint32_t route : added)
      tries->ends.push_back(
          {route, !all[route].methods.empty() || !all[route].listeners.empty() || !all[route].match.empty()});
    return first;
  }

  const Model& model;
  std::shared_ptr<Tries> tries;
  std::vector<Routes> routes;  // by node
};

namespace {

bool same_conditions(const RouteConditions& a, const RouteConditions& b) {
  return a.headers == b.headers && a.query == b.query && a.cookies == b.cookies && a.clients == b.clients &&
         a.path_regex == b.path_regex && a.headers_regex == b.headers_regex && a.query_regex == b.query_regex;
}

// True if each route takes the same requests in both versions. The routes may do other things with them.
bool same_patterns(const Elements<Route>& a, const Elements<Route>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a.shares(i, b)) continue;
    const Route &left = a[i], &right = b[i];
    if (left.path != right.path || left.hosts != right.hosts || left.methods != right.methods ||
        left.listeners != right.listeners || left.priority != right.priority ||
        !same_conditions(left.match, right.match)) {
      return false;
    }
  }
  return true;
}

}  // namespace

Router::Router(std::shared_ptr<const Model> model, const HashKey& key, const Router* previous)
    : model_(std::move(model)),
      tries_(previous != nullptr && same_patterns(model_->routes, previous->model_->routes)
                 ? previous->tries_
                 : Builder(*model_, key).tries) {}

RouteMatch Router::match(uint32_t listener, std::string_view method, std::string_view host, std::string_view path,
                         RouteParameters& parameters, const ConditionJudge* judge) const {
  parameters.count = 0;
  Search state{listener, method, path, parameters, judge, {}};
  const auto search_host = [&](std::string_view pattern) {
    const uint32_t root = find_host(pattern);
    return root != kNoNode && search(state, root, 1);
  };
  bool found = !host.empty() && search_host(host);
  if (!found && tries_->any_wildcard && host.size() < 256) {
    char pattern[257] = "*";
    // From the longest suffix to the shortest. A wildcard stands for one or more labels, none of them empty.
    for (size_t dot = host.find('.', 1); !found && dot != std::string_view::npos; dot = host.find('.', dot + 1)) {
      const size_t bytes = host.copy(pattern + 1, host.size() - dot, dot);
      found = search_host({pattern, bytes + 1});
    }
  }
  if (!found) found = search_host({});

  if (!found) {
    parameters.count = 0;
    return state.result;
  }
  state.result.method_refused = false;
  if (parameters.count > 0) {
    const std::vector<std::string>& names = tries_->parameter_names[state.result.route];
    for (size_t i = 0; i < parameters.count; ++i) parameters.items[i].first = names[i];
  }
  return state.result;
}

bool Router::search(Search& state, uint32_t node_index, size_t at) const {
  const Node& node = tries_->nodes[node_index];
  if (at > state.path.size()) {  // "/prefix/*" matches "/prefix" too
    return accept(state, node.first_end, node.first_rest) || accept(state, node.first_rest, node.last);
  }
  const size_t end = std::min(state.path.find('/', at), state.path.size());
  const std::string_view segment = state.path.substr(at, end - at);
  const uint32_t literal = tries_->literals.find(node_index, segment);
  if (literal != kNoNode && search(state, literal, end + 1)) return true;
  if (node.parameter_child != kNoNode && !segment.empty()) {
    RouteParameters& taken = state.parameters;
    const bool kept = taken.count < kMaxPathParameters;
    if (kept) taken.items[taken.count++].second = segment;
    if (search(state, node.parameter_child, end + 1)) return true;
    if (kept) --taken.count;
  }
  return accept(state, node.first_rest, node.last);
}

namespace {

template <class List, class Item>
bool takes(const List& list, const Item& item) {
  return list.empty() || std::find(list.begin(), list.end(), item) != list.end();
}

}  // namespace

bool Router::accept(Search& state, uint32_t first, uint32_t last) const {
  const auto meets = [&](uint32_t route) {
    const RoutePatterns* const patterns = tries_->patterns.empty() ? nullptr : tries_->patterns[route].get();
    if (patterns != nullptr && !patterns->takes_path(state.path)) return false;
    return state.judge != nullptr && state.judge->meets(model_->routes[route].match, patterns);
  };
  uint32_t by_get = kNone;  // a route for GET matches HEAD (RFC 9110 §9.3.2), after routes that name HEAD
  for (; first < last; ++first) {
    const End& end = tries_->ends[first];
    if (end.restricted) {
      const Route& route = model_->routes[end.route];
      if (by_get != kNone && compare_rank(route, model_->routes[by_get]) != 0) break;
      if (!takes(route.listeners, state.listener)) continue;
      if (!route.match.empty() && !meets(end.route)) continue;
      if (!takes(route.methods, state.method)) {
        if (state.method == "HEAD" && by_get == kNone && takes(route.methods, "GET")) by_get = end.route;
        state.result.refuse_method(end.route);
        continue;
      }
    }
    // Among routes of one rank, those with methods come before those without. So a route for GET wins over a route for
    // any method.
    const bool for_any = by_get != kNone && model_->routes[end.route].methods.empty();
    state.result.route = for_any ? by_get : end.route;
    return true;
  }
  if (by_get == kNone) return false;
  state.result.route = by_get;
  return true;
}

}  // namespace tidegate::l7
