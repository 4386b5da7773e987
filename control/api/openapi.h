// SPDX-License-Identifier: Apache-2.0
// The OpenAPI 3.1 document. It is made from the route table that also dispatches, so it always describes what is
// served.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "control/api/route_table.h"

namespace tidegate {

nlohmann::json openapi_document(const RouteTable& table);

// Adds /v1/openapi.json, /metrics and /healthz. `table` must outlive the handlers. Routes may be added later. `health`
// returns further lines for /healthz; it may be empty.
void add_meta_routes(RouteTable& table, std::function<std::string()> health = {});

}  // namespace tidegate
