// Router: which route answers a request. Compiled once from a Model; immutable, shared by all workers.
//
// Order of decision (conf/route_pattern.h says it in full): the most specific host that has a matching path, then
// within it segment by segment literal > {parameter} > trailing *. Hosts and literal segments are found by keyed hash,
// so 100,000 routes cost a request what ten do, and nobody can aim at the tables.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "conf/model.h"
#include "core/hash.h"

namespace tidegate::l7 {

constexpr size_t kMaxPathSegments = 64;  // deeper paths match as far as a trailing * does
constexpr size_t kMaxPathParameters = 16;

// Segment values are views of the path that was matched; names belong to the Router.
struct RouteParameters {
  std::array<std::pair<std::string_view, std::string_view>, kMaxPathParameters> items;
  size_t count = 0;
  // Empty when there is none of that name.
  std::string_view find(std::string_view name) const;
};

struct RouteMatch {
  uint32_t route = kNone;       // index into Model::routes
  bool method_refused = false;  // none, though another method would have matched
};

class Router {
 public:
  Router(std::shared_ptr<const Model> model, const HashKey& key);

  // `host`: lower case, without port and final dot. `path`: normalised, without query. Allocates nothing.
  RouteMatch match(uint32_t listener, std::string_view method, std::string_view host, std::string_view path,
                   RouteParameters& parameters) const;
  const Model& model() const { return *model_; }

 private:
  static constexpr uint32_t kNoNode = UINT32_MAX;
  // A place in a trie of segments. Literal children are in literals_, keyed by this node and the segment.
  struct Node {
    uint32_t parameter_child = kNoNode;
    std::vector<uint32_t> routes;       // whose pattern ends here
    std::vector<uint32_t> rest_routes;  // whose pattern ends here with "*"
  };
  struct Literal {
    uint32_t parent;
    std::string text;
    uint32_t child;
  };
  struct Search {
    uint32_t listener;
    std::string_view method;
    std::array<std::string_view, kMaxPathSegments> segments;
    size_t segment_count;
    bool deeper;  // the path has more segments than were split
    std::array<std::string_view, kMaxPathParameters> values;
    size_t value_count;
    RouteMatch result;
  };
  // Passes hashes through: the keys of these maps are keyed hashes already.
  struct Identity {
    size_t operator()(uint64_t hash) const { return hash; }
  };

  void add(uint32_t route);
  uint32_t trie_of(const std::string& host_pattern);
  uint32_t child_of(uint32_t node, const std::string& literal);
  uint64_t literal_hash(uint32_t node, std::string_view text) const;
  uint32_t find_literal(uint32_t node, std::string_view text) const;
  uint32_t find_host(std::string_view pattern) const;
  bool search(Search& search, uint32_t node, size_t depth) const;
  bool accept(Search& search, const std::vector<uint32_t>& routes) const;

  std::shared_ptr<const Model> model_;
  HashKey key_;
  std::vector<Node> nodes_;
  std::unordered_multimap<uint64_t, Literal, Identity> literals_;
  // Root of each host's trie: "www.example.com", "*.example.com", "" for any host.
  std::unordered_multimap<uint64_t, std::pair<std::string, uint32_t>, Identity> hosts_;
  std::vector<std::vector<std::string>> parameter_names_;  // by route, in order
  bool any_wildcard_ = false;
};

}  // namespace tidegate::l7
