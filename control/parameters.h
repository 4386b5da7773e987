// SPDX-License-Identifier: Apache-2.0
// Numbers and JSON out of a request, refused in one way.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "control/json_bounds.h"
#include "control/problem.h"
#include "control/route_table.h"

namespace tidegate {

// The parameter, or `otherwise` when absent. The route's table declares it as a number, so that dispatch has checked
// it.
uint64_t number_parameter(const ApiCall& call, std::string_view name, uint64_t otherwise);

// The body as a JSON object with no members but `known`; nothing (and a 400 sent) otherwise.
std::optional<nlohmann::json> object_body(const ApiCall& call, std::initializer_list<std::string_view> known);

// A note or comment out of the body; empty when absent or null, nothing (and a 400 sent) when it is no string, or a
// long one.
std::optional<std::string> note_member(const ApiCall& call, const nlohmann::json& body, const char* member);

}  // namespace tidegate
