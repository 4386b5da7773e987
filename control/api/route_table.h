// SPDX-License-Identifier: Apache-2.0
// RouteTable: the only list of the API's paths. Dispatch, the OpenAPI document and the test of roles read it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/query.h"
#include "control/api/auth.h"
#include "control/api/idempotency.h"
#include "control/limits.h"
#include "core/assert.h"
#include "core/http_server.h"

namespace tidegate {

// One call of the API: the caller, and the values of the pattern's {names} (decoded).
struct ApiCall {
  HttpExchangePtr exchange;
  Principal who;
  std::map<std::string, std::string> path;
  std::optional<OnceOnly> once;  // set if it has an Idempotency-Key: then a change is committed with its answer

  const HttpRequest& request() const { return exchange->request(); }
  void respond(HttpResponse response) const { exchange->respond(std::move(response)); }
  bool flag(std::string_view parameter) const;  // a boolean parameter of the route's table; false if absent
};
using ApiHandler = std::function<void(const ApiCall&)>;

enum class Effect : uint8_t {
  reads,
  writes,  // writes the state: refused by a control that follows another control
};

struct ApiRoute {
  std::string method;
  std::string pattern;  // "/v1/config/{kind}/{name}"
  Role role = Role::viewer;
  Effect effect = Effect::reads;
  std::string summary;
  std::vector<QueryParameter> query;  // checked before the handler is called
  std::vector<std::string> accepts;   // media types of the request's body; empty: it has no body
  ApiHandler handler;
  size_t body_bytes = kMaxBodyBytes;  // a longer body is refused
  bool any_query = false;             // passed on to a plane, which checks the parameters
};

// Returns true if `path` matches `pattern`, and sets its names. A {name} matches one non-empty segment,
// percent-decoded.
bool match_pattern(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& bound);

class RouteTable {
 public:
  void add(ApiRoute route);
  const std::vector<ApiRoute>& routes() const { return routes_; }

  struct Found {
    const ApiRoute* route = nullptr;  // null: there is no such path, or not with this method
    std::map<std::string, std::string> path;
    std::string allow;  // the allowed methods of the path, if only the method was wrong
  };
  Found find(std::string_view method, std::string_view path) const;

 private:
  std::vector<ApiRoute> routes_;
};

}  // namespace tidegate
