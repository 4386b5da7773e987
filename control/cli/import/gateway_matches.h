// SPDX-License-Identifier: Apache-2.0
// The matches of HTTPRoutes as routes. Matches of one path are asked in the Gateway API's order.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "control/cli/import/cases.h"
#include "control/cli/import/gateway_filters.h"
#include "control/cli/import/gateway_listeners.h"
#include "control/cli/import/kubernetes_objects.h"

namespace tidegate::cli {

// The answer in place of a rule that is not valid, as the Gateway API asks.
inline constexpr uint32_t kGatewayNotValid = 500;

struct GatewayRoute {
  std::string name, space, stamp;  // stamp: when it was made; empty: not said
  std::vector<GatewayPlace> where;
};

// One rule, as keys of a route.
struct GatewayRule {
  const GatewayRoute& route;
  std::string name;
  const GatewayFilters& filters;
  nlohmann::json answer;
  nlohmann::json closed;  // null: the rule does what it says; otherwise the answer instead
};

class GatewayMatches {
 public:
  explicit GatewayMatches(Imported& into) : into_(into) {}

  // `match`: null if the rule has none. `place`: what stands in the file.
  void add(const DocumentNode* match, const DocumentNode& place, const GatewayRule& rule);
  // Makes the routes, at the end.
  void make_routes();

 private:
  // A route that is to be made, and its rank among those of the same path.
  struct Entry {
    std::string path, name;
    std::tuple<size_t, size_t, size_t, size_t> rank;   // higher first: path, method, headers, parameters
    std::tuple<std::string, std::string, size_t> age;  // lower first: time stamp, name, place in the file
    std::vector<std::string> listeners, hosts;
    When when;
    nlohmann::json answer;
    uint32_t line = 0;
  };
  static Result<void> add_path(const DocumentNode* match, Entry& entry, std::string& prefix);
  static Result<void> add_conditions(const DocumentNode* list, const std::string& kind, nlohmann::json& match);

  Imported& into_;
  std::vector<Entry> entries_;
};

}  // namespace tidegate::cli
