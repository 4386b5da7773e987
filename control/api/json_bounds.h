// SPDX-License-Identifier: Apache-2.0
// Reads foreign JSON. Its depth has a limit, because the reading code is recursive.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "control/limits.h"
#include "core/result.h"

namespace tidegate {

// Returns the value, or an Error that says where the text is not JSON. An object with the same key twice is refused.
Result<nlohmann::json> parse_json(std::string_view text);

// nlohmann's dump() throws if bytes are not UTF-8. This function writes U+FFFD for them.
std::string dump(const nlohmann::json& value, int indent = -1);

// Members of a foreign answer. If one is absent, null or of another type, returns `otherwise`.
std::string string_member(const nlohmann::json& object, const char* key, std::string otherwise = {});
uint64_t number_member(const nlohmann::json& object, const char* key, uint64_t otherwise = 0);
bool bool_member(const nlohmann::json& object, const char* key, bool otherwise = false);

}  // namespace tidegate
