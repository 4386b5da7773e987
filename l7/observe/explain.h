// SPDX-License-Identifier: Apache-2.0
// Explain: why a request goes where it goes. It asks the same functions and the same state that serve requests.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cache/cache.h"
#include "core/http_server.h"
#include "core/result.h"
#include "l7/plan.h"

namespace tidegate::l7 {

// GET /explain?client=ADDRESS&url=URL[&method=M][&headers=LINES][&body=BYTES]. Says what would happen to a request of
// this client. Asking changes nothing. "ends" says where it ends: {"at": "head", "acme", "policy", "route", "cache",
// "pool" or "backend"}, with the status where the proxy itself answers; null if chance decides that. "not_asked" lists
// what only a request can show. `cache` may be null. Returns an Error if a parameter is missing or malformed.
Result<nlohmann::json> explain_request(const Plan& plan, const cache::Cache* cache, const HttpRequest& request);

}  // namespace tidegate::l7
