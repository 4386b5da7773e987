// SPDX-License-Identifier: Apache-2.0
// Checks of routes and of fields that several cross checks share.
#pragma once

#include <cstddef>
#include <string_view>

#include "conf/checks.h"

namespace tidegate {

// `match` of a route: names, patterns, and what a cache would forget. In validate_conditions.cc.
void check_route_conditions(Checks& checks, size_t r);

// Fields that say where a message ends, or that hold between two neighbours alone (RFC 9110 §7.6.1): the proxy writes
// them itself, and a second reading of them is a smuggled request. `lower_name`: in lower case. In validate_http.cc.
bool is_framing_field(std::string_view lower_name);

}  // namespace tidegate
