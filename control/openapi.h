// SPDX-License-Identifier: Apache-2.0
// The OpenAPI 3.1 document, made from the route table that dispatches: it cannot say anything else than what is served.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "control/route_table.h"

namespace tidegate {

nlohmann::json openapi_document(const RouteTable& table);

// /v1/openapi.json, /metrics, /healthz. `table` outlives the handlers and may still grow.
void add_meta_routes(RouteTable& table);

}  // namespace tidegate
