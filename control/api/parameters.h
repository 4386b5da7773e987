// SPDX-License-Identifier: Apache-2.0
// Reads numbers and JSON of a request, with the same refusals everywhere.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "control/api/json_bounds.h"
#include "control/api/problem.h"
#include "control/api/route_table.h"

namespace tidegate {

// Returns the parameter, or `otherwise` if it is absent. The route's table declares it as a number, so dispatch has
// checked it.
uint64_t number_parameter(const ApiCall& call, std::string_view name, uint64_t otherwise);

// Returns the body as a JSON object that has only members in `known`. Otherwise sends 400 and returns nothing.
std::optional<nlohmann::json> object_body(const ApiCall& call, std::initializer_list<std::string_view> known);

// Returns a note or comment in the body. It is empty if absent or null. If it is not a string or is too long, sends 400
// and returns nothing.
std::optional<std::string> note_member(const ApiCall& call, const nlohmann::json& body, const char* member);

}  // namespace tidegate
