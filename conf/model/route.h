// SPDX-License-Identifier: Apache-2.0
// Routes: which requests the proxy takes, and what it does with them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

// Conditions on a request in addition to host, path and method. All of them must hold.
struct RouteConditions {
  using Pairs = std::vector<std::pair<std::string, std::string>>;  // the value "*": any
  Pairs headers, query, cookies;
  std::vector<Cidr> clients;  // the client's address is in one of them
  // Regular expressions (RE2). Each must match the whole path, or the whole value of a field or a parameter.
  std::string path_regex;  // empty: any path that the route's pattern takes
  Pairs headers_regex, query_regex;
  bool has_regex() const { return !path_regex.empty() || !headers_regex.empty() || !query_regex.empty(); }
  bool empty() const { return headers.empty() && query.empty() && cookies.empty() && clients.empty() && !has_regex(); }
};

struct RouteCache {
  bool enabled = false;
  uint64_t default_ttl_ms = 0;  // freshness if the response does not say it (0: heuristic, RFC 9111 §4.2.2)
  uint64_t max_ttl_ms = uint64_t{365} * 86'400'000;
  uint64_t stale_while_revalidate_ms = 0;  // used if the response does not say it
  uint64_t stale_if_error_ms = 0;
  std::vector<std::string> key_query;  // query parameters that are part of the key; empty: all, in the given order
  bool ignore_query = false;
  bool ignore_reload = false;       // true: this cache ignores a client's no-cache and max-age
  bool send_tags = false;           // true: clients get Cache-Tag and Surrogate-Key
  bool purge_both_schemes = false;  // true: a purge of an http URL also purges the https URL, and the reverse
};

// The priority among requests that wait for room at a backend of one pool, in rising order.
enum class QueuePriority : uint8_t { low, normal, high };

// The action of a route: a pool, a redirect or a fixed answer.
struct RouteToPool {
  uint32_t pool = kNone;
  bool operator==(const RouteToPool&) const = default;
};
struct RouteRedirect {
  std::string location;  // {host}, {authority}, {path}, {query} and path parameters are replaced
  uint16_t status = 302;
  bool operator==(const RouteRedirect&) const = default;
};
struct RouteAnswer {  // health checks, blocks
  uint16_t status = 0;
  std::string body;
  bool operator==(const RouteAnswer&) const = default;
};

struct Route {
  std::string name;
  std::vector<uint32_t> listeners;   // empty: all
  std::vector<std::string> hosts;    // "www.example.com", "*.example.com"; empty: any
  std::string path = "/*";           // "/exact", "/a/{id}/b", "/prefix/*"
  std::vector<std::string> methods;  // empty: any
  RouteConditions match;             // further conditions
  uint32_t priority = 0;             // among routes that match a request equally well, the highest wins
  std::variant<std::monostate, RouteToPool, RouteRedirect, RouteAnswer> what;
  std::vector<std::string> labels;  // the route uses only backends of the pool that have all of them
  bool labels_required = true;      // false: if no such backend is in service, any backend
  QueuePriority queue_priority = QueuePriority::normal;
  bool grpc_web = false;          // gRPC-Web is translated to gRPC
  uint64_t total_timeout_ms = 0;  // from the request's head to the response's head, all tries together; 0: no limit
  uint64_t try_timeout_ms = 0;    // from the request's last byte to the response's head, one try; 0: the pool's
  std::vector<uint32_t> retry_statuses;  // answers with these are tried again, where that is safe
  // Set on requests to the backend; an empty value removes the field.
  std::vector<std::pair<std::string, std::string>> request_headers;
  std::vector<std::pair<std::string, std::string>> response_headers;  // set on responses to the client
  RouteCache cache;
  std::vector<uint32_t> policies;  // in addition to those of the listener

  // kNone if the route has no pool.
  uint32_t pool() const { return std::holds_alternative<RouteToPool>(what) ? std::get<RouteToPool>(what).pool : kNone; }
  // Null if the route is of another type.
  const RouteRedirect* redirect() const { return std::get_if<RouteRedirect>(&what); }
  const RouteAnswer* answer() const { return std::get_if<RouteAnswer>(&what); }
};

}  // namespace tidegate
