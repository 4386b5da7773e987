// SPDX-License-Identifier: Apache-2.0
// Reads JSON from outside. Its depth has a limit, because the code that reads it is recursive.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "control/limits.h"
#include "core/result.h"

namespace tidegate {

// Returns the value, or an Error that says where the text is no JSON. An object with the same key twice is refused.
Result<nlohmann::json> parse_json(std::string_view text);

// Deepest nesting of brackets outside strings; needs no valid JSON.
size_t json_depth(std::string_view text);

// A dump that never throws: bytes that are not UTF-8 become U+FFFD.
std::string dump(const nlohmann::json& value, int indent = -1);

// Members of an answer from elsewhere: absent, null or of another type gives `otherwise`.
std::string string_member(const nlohmann::json& object, const char* key, std::string otherwise = {});
uint64_t number_member(const nlohmann::json& object, const char* key, uint64_t otherwise = 0);
bool bool_member(const nlohmann::json& object, const char* key, bool otherwise = false);

}  // namespace tidegate
