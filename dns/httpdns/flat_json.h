// SPDX-License-Identifier: Apache-2.0
// A JSON object without objects or lists in it, as clients seal their parameters: bounded, and read in one pass.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace tidegate::dns {

// Member by name; numbers and words as they are written. Nothing: not such an object, a name twice, or escapes beyond
// ASCII, which no parameter has.
std::optional<std::map<std::string, std::string, std::less<>>> parse_flat_json(std::string_view text);

}  // namespace tidegate::dns
