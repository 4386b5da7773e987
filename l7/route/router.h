// SPDX-License-Identifier: Apache-2.0
// Router: finds the route that answers a request. It is compiled once from a Model. It is immutable, and all workers
// share it.
//
// A Router has a trie of path segments for each host. The nodes are in one array, so that a request waits for memory
// about once for each segment. The order of decision is (conf/route_pattern.h has it in full): the most specific host
// that has a matching path; in it, segment by segment: literal, then {parameter}, then the end, then trailing *. A
// route for GET also matches HEAD. If several routes end at one place, the order is: higher priority, then more
// conditions (Route::match), then methods, then listeners. A route whose conditions are not met is ignored. Hosts and
// literal segments are found by a keyed hash. So the number of lookups is the same for ten routes and for 100,000, and
// no client can choose texts that collide.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "conf/model.h"
#include "conf/model/route.h"
#include "l7/route/text_table.h"

namespace tidegate::l7 {

constexpr size_t kMaxPathParameters = 16;

// The values are views of the path that was matched. The Router owns the names.
struct RouteParameters {
  std::array<std::pair<std::string_view, std::string_view>, kMaxPathParameters> items;
  size_t count = 0;
  // Empty if there is no parameter of that name.
  std::string_view find(std::string_view name) const;
};

struct RouteMatch {
  static constexpr size_t kRefusers = 16;
  uint32_t route = kNone;                    // index into Model::routes
  bool method_refused = false;               // routes match, but none allows this method
  std::array<uint32_t, kRefusers> refusers;  // these routes, for Allow; the first refuser_count are set
  size_t refuser_count = 0;

  void refuse_method(uint32_t by_route) {
    method_refused = true;
    if (refuser_count < kRefusers) refusers[refuser_count++] = by_route;
  }
};

class RoutePatterns;  // patterns.h

// Checks the conditions of routes for one request, except the path. It is asked only if a route with conditions would
// match. `patterns`: the route's regular expressions; null: it has none.
class ConditionJudge {
 public:
  virtual bool meets(const RouteConditions& conditions, const RoutePatterns* patterns) const = 0;

 protected:
  ~ConditionJudge() = default;
};

class Router {
 public:
  // `previous`: of the same key, or null. If all routes have the patterns that they have there, nothing is compiled.
  Router(std::shared_ptr<const Model> model, const HashKey& key, const Router* previous = nullptr);

  // `host`: lower case, without port and final dot. `path`: normalised, without query. `judge`: null means that the
  // request meets no conditions. Allocates nothing.
  RouteMatch match(uint32_t listener, std::string_view method, std::string_view host, std::string_view path,
                   RouteParameters& parameters, const ConditionJudge* judge = nullptr) const;
  const Model& model() const { return *model_; }
  // Why a route cannot be used. Empty: all routes can be used.
  const std::string& fault() const { return tries_->fault; }
  // True if both Routers share one set of tries.
  bool shares_tries(const Router& other) const { return tries_ == other.tries_; }

 private:
  static constexpr uint32_t kNoNode = TextTable::kAbsent;
  // A place in a trie of segments. Literal children are in Tries::literals, by this node and the segment.
  struct Node {
    uint32_t parameter_child = kNoNode;
    uint32_t first_end = 0;   // in Tries::ends: from here on, the routes whose pattern ends at this node
    uint32_t first_rest = 0;  // from here on, those whose pattern ends at this node with "*"
    uint32_t last = 0;        // one behind the last of them
  };
  struct End {
    uint32_t route = kNone;
    bool restricted = false;  // restricted to listeners, methods or conditions
  };
  struct Search {
    uint32_t listener;
    std::string_view method;
    std::string_view path;
    RouteParameters& parameters;
    const ConditionJudge* judge;
    RouteMatch result;
  };
  struct Builder;

  uint32_t find_host(std::string_view pattern) const { return tries_->hosts.find(0, pattern); }
  // `at`: where the next segment begins in the path; past the end of the path if there is no further segment.
  bool search(Search& search, uint32_t node, size_t at) const;
  bool accept(Search& search, uint32_t first, uint32_t last) const;

  // Everything that follows from the patterns of the routes. The Routers of several versions can share it.
  struct Tries {
    explicit Tries(const HashKey& key) : literals(key), hosts(key) {}

    std::vector<Node> nodes;
    std::vector<End> ends;
    TextTable literals;
    TextTable hosts;  // root of each host's trie: "www.example.com", "*.example.com", "" for any host
    std::vector<std::vector<std::string>> parameter_names;  // by route, in order
    // By route: its regular expressions, null where it has none. Empty: no route has any.
    std::vector<std::shared_ptr<const RoutePatterns>> patterns;
    bool any_wildcard = false;
    std::string fault;
  };

  std::shared_ptr<const Model> model_;
  std::shared_ptr<const Tries> tries_;
};

}  // namespace tidegate::l7
