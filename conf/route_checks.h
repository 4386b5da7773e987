// SPDX-License-Identifier: Apache-2.0
// Checks of routes and of fields that several cross checks share.
#pragma once

#include <cstddef>
#include <string_view>

#include "conf/checks.h"

namespace tidegate {

// Checks `match` of a route: names, patterns, and what a cache would ignore. In validate_conditions.cc.
void check_route_conditions(Checks& checks, size_t r);

// Fields that say where a message ends, or that hold only between two neighbours (RFC 9110 §7.6.1). The proxy writes
// them itself, because a second reading of them allows request smuggling. `lower_name`: in lower case. In
// validate_http.cc.
bool is_framing_field(std::string_view lower_name);

}  // namespace tidegate
