// SPDX-License-Identifier: Apache-2.0
// A JSON object without objects or lists in it, in which clients seal their parameters. It is bounded, and read in one
// pass.
#pragma once

#include <optional>
#include <string_view>

#include "dns/httpdns/parameters.h"

namespace tidegate::dns {

// Members by name. Numbers and words stay as they are written. Nothing if it is not such an object, has a name twice,
// or has escapes beyond ASCII, which no parameter needs.
std::optional<Parameters> parse_flat_json(std::string_view text);

}  // namespace tidegate::dns
