// SPDX-License-Identifier: Apache-2.0
// RouteTable: every path of the API, stated once. Dispatch, the OpenAPI document and the test of roles all read it.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/query.h"
#include "control/auth.h"
#include "control/idempotency.h"
#include "core/http_server.h"

namespace tidegate {

// One call of the API on its way to a handler: who asks, and what the pattern's {names} matched (decoded).
struct ApiCall {
  HttpExchangePtr exchange;
  Principal who;
  std::map<std::string, std::string> path;
  std::optional<OnceOnly> once;  // it came with an Idempotency-Key: what changes is committed with its answer

  const HttpRequest& request() const { return exchange->request(); }
  void respond(HttpResponse response) const { exchange->respond(std::move(response)); }
  bool flag(std::string_view parameter) const;  // a boolean of the route's table; false when absent
};
using ApiHandler = std::function<void(const ApiCall&)>;

enum class Effect : uint8_t {
  reads,
  writes,  // the truth: refused where another control's stream is followed
};

struct ApiRoute {
  std::string method;
  std::string pattern;  // "/v1/config/{kind}/{name}"
  Role role = Role::viewer;
  Effect effect = Effect::reads;
  std::string summary;
  std::vector<QueryParameter> query;  // checked before the handler is called
  std::vector<std::string> accepts;   // media types of the request's body; empty: none is taken
  ApiHandler handler;
  bool any_query = false;  // handed on to a plane, which knows its own parameters
};

// The names that `pattern` binds in `path`, or false. A {name} matches one non-empty segment, percent-decoded.
bool match_pattern(std::string_view pattern, std::string_view path, std::map<std::string, std::string>& bound);

class RouteTable {
 public:
  void add(ApiRoute route) { routes_.push_back(std::move(route)); }
  const std::vector<ApiRoute>& routes() const { return routes_; }

  struct Found {
    const ApiRoute* route = nullptr;  // null: no such method or no such path
    std::map<std::string, std::string> path;
    std::string allow;  // methods of the path, when only the method was wrong
  };
  Found find(std::string_view method, std::string_view path) const;

 private:
  std::vector<ApiRoute> routes_;
};

}  // namespace tidegate
