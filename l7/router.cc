#include "l7/router.h"

#include <algorithm>

#include "conf/route_pattern.h"

namespace tidegate::l7 {

std::string_view RouteParameters::find(std::string_view name) const {
  for (size_t i = 0; i < count; ++i) {
    if (items[i].first == name) return items[i].second;
  }
  return {};
}

Router::Router(std::shared_ptr<const Model> model, const HashKey& key) : model_(std::move(model)), key_(key) {
  parameter_names_.resize(model_->routes.size());
  for (uint32_t route = 0; route < model_->routes.size(); ++route) add(route);
  // Where several routes end at one place they differ in listeners or methods: the more restricted is asked first.
  const auto more_restricted = [this](uint32_t a, uint32_t b) {
    const Route &left = model_->routes[a], &right = model_->routes[b];
    if (left.methods.empty() != right.methods.empty()) return !left.methods.empty();
    return !left.listeners.empty() && right.listeners.empty();
  };
  for (Node& node : nodes_) {
    std::stable_sort(node.routes.begin(), node.routes.end(), more_restricted);
    std::stable_sort(node.rest_routes.begin(), node.rest_routes.end(), more_restricted);
  }
}

void Router::add(uint32_t route_index) {
  const Route& route = model_->routes[route_index];
  const Result<PathPattern> pattern = PathPattern::parse(route.path);
  if (!pattern) return;  // a validated Model holds none
  for (const PathSegment& segment : pattern->segments) {
    if (segment.kind == PathSegment::Kind::parameter) parameter_names_[route_index].push_back(segment.text);
  }
  std::vector<std::string> hosts;
  for (const std::string& text : route.hosts) {
    if (const Result<HostPattern> host = HostPattern::parse(text)) hosts.push_back(host->to_string());
  }
  if (route.hosts.empty()) hosts.emplace_back();

  for (const std::string& host : hosts) {
    uint32_t node = trie_of(host);
    bool rest = false;
    for (const PathSegment& segment : pattern->segments) {
      if (segment.kind == PathSegment::Kind::rest) {
        rest = true;
      } else if (segment.kind == PathSegment::Kind::literal) {
        node = child_of(node, segment.text);
      } else {
        if (nodes_[node].parameter_child == kNoNode) {
          nodes_[node].parameter_child = static_cast<uint32_t>(nodes_.size());
          nodes_.emplace_back();
        }
        node = nodes_[node].parameter_child;
      }
    }
    (rest ? nodes_[node].rest_routes : nodes_[node].routes).push_back(route_index);
  }
}

uint32_t Router::trie_of(const std::string& host_pattern) {
  const uint32_t known = find_host(host_pattern);
  if (known != kNoNode) return known;
  if (host_pattern.starts_with("*.")) any_wildcard_ = true;
  const auto root = static_cast<uint32_t>(nodes_.size());
  nodes_.emplace_back();
  hosts_.emplace(siphash13(key_, host_pattern), std::pair(host_pattern, root));
  return root;
}

uint32_t Router::child_of(uint32_t node, const std::string& literal) {
  const uint32_t known = find_literal(node, literal);
  if (known != kNoNode) return known;
  const auto child = static_cast<uint32_t>(nodes_.size());
  nodes_.emplace_back();
  literals_.emplace(literal_hash(node, literal), Literal{node, literal, child});
  return child;
}

uint64_t Router::literal_hash(uint32_t node, std::string_view text) const {
  return siphash13({key_.k0, key_.k1 ^ node}, text);
}

uint32_t Router::find_literal(uint32_t node, std::string_view text) const {
  const auto [first, last] = literals_.equal_range(literal_hash(node, text));
  for (auto it = first; it != last; ++it) {
    if (it->second.parent == node && it->second.text == text) return it->second.child;
  }
  return kNoNode;
}

uint32_t Router::find_host(std::string_view pattern) const {
  const auto [first, last] = hosts_.equal_range(siphash13(key_, pattern));
  for (auto it = first; it != last; ++it) {
    if (it->second.first == pattern) return it->second.second;
  }
  return kNoNode;
}

RouteMatch Router::match(uint32_t listener, std::string_view method, std::string_view host, std::string_view path,
                         RouteParameters& parameters) const {
  Search state{};
  state.listener = listener;
  state.method = method;
  for (size_t at = 1; at <= path.size();) {
    const size_t slash = std::min(path.find('/', at), path.size());
    if (state.segment_count == kMaxPathSegments) {
      state.deeper = true;
      break;
    }
    state.segments[state.segment_count++] = path.substr(at, slash - at);
    at = slash + 1;
  }

  const auto search_host = [&](std::string_view pattern) {
    const uint32_t root = find_host(pattern);
    return root != kNoNode && search(state, root, 0);
  };
  bool found = !host.empty() && search_host(host);
  if (!found && any_wildcard_ && host.size() < 256) {
    char pattern[257] = "*";
    // From the longest suffix to the shortest; a wildcard stands for one or more labels, none of them empty.
    for (size_t dot = host.find('.', 1); !found && dot != std::string_view::npos; dot = host.find('.', dot + 1)) {
      const size_t bytes = host.copy(pattern + 1, host.size() - dot, dot);
      found = search_host({pattern, bytes + 1});
    }
  }
  if (!found) found = search_host({});

  parameters.count = 0;
  if (found) {
    state.result.method_refused = false;
    const std::vector<std::string>& names = parameter_names_[state.result.route];
    for (size_t i = 0; i < names.size() && i < state.value_count; ++i) {
      parameters.items[parameters.count++] = {names[i], state.values[i]};
    }
  }
  return state.result;
}

bool Router::search(Search& state, uint32_t node_index, size_t depth) const {
  const Node& node = nodes_[node_index];
  if (depth == state.segment_count) return !state.deeper && accept(state, node.routes);
  const std::string_view segment = state.segments[depth];
  const uint32_t literal = find_literal(node_index, segment);
  if (literal != kNoNode && search(state, literal, depth + 1)) return true;
  if (node.parameter_child != kNoNode && !segment.empty()) {
    const bool kept = state.value_count < kMaxPathParameters;
    if (kept) state.values[state.value_count++] = segment;
    if (search(state, node.parameter_child, depth + 1)) return true;
    if (kept) --state.value_count;
  }
  return accept(state, node.rest_routes);
}

bool Router::accept(Search& state, const std::vector<uint32_t>& routes) const {
  for (const uint32_t index : routes) {
    const Route& route = model_->routes[index];
    const auto has = [](const auto& list, const auto& item) {
      return list.empty() || std::find(list.begin(), list.end(), item) != list.end();
    };
    if (!has(route.listeners, state.listener)) continue;
    if (!has(route.methods, state.method)) {
      state.result.method_refused = true;
      continue;
    }
    state.result.route = index;
    return true;
  }
  return false;
}

}  // namespace tidegate::l7
