// SPDX-License-Identifier: Apache-2.0
// A JSON object without objects or lists in it, as clients seal their parameters: bounded, and read in one pass.
#pragma once

#include <optional>
#include <string_view>

#include "dns/httpdns/parameters.h"

namespace tidegate::dns {

// Member by name; numbers and words as they are written. Nothing: not such an object, a name twice, or escapes beyond
// ASCII, which no parameter has.
std::optional<Parameters> parse_flat_json(std::string_view text);

}  // namespace tidegate::dns
