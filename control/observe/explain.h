// SPDX-License-Identifier: Apache-2.0
// Explain: why a client's query, packet and request go where they go. Nothing is computed here. Each plane says what it
// would do, by its own functions and live state. Its answer decides which plane is asked next:
//
//   dns (a node that serves DNS) -> the VIP among its answers -> l4 (a forwarder of the VIP's site) -> the backend's
//   node -> l7
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/ip.h"

namespace tidegate {

struct ExplainQuestion {
  IpAddress client;
  std::optional<uint16_t> client_port;
  std::string url;  // absolute; empty if the question is only about a name
  std::string method = "GET";
  std::string headers;           // fields of the request: lines "Name: value", with LF between them
  std::optional<uint64_t> body;  // bytes of the request's body
  std::string host;              // of the URL, or the name itself
  uint16_t port = 443;
};

// Returns port and host of an absolute http(s) URL. An Error is a sentence.
struct UrlParts {
  std::string host;
  uint16_t port = 0;
};
Result<UrlParts> split_url(std::string_view url);

// Calls `done` once with {"client","url","version","steps":[...],"sentence"}. A plane that cannot be reached has a step
// that says so.
void explain(Fleet& fleet, const HostState& host_state, ExplainQuestion question,
             std::function<void(nlohmann::json)> done);

void add_explain_routes(RouteTable& table, HostState& host_state, Fleet& fleet);

}  // namespace tidegate
