// SPDX-License-Identifier: Apache-2.0
// The standard library and JSON. See std.h.
#ifndef TIDEGATE_CORE_PCH_JSON_H_
#define TIDEGATE_CORE_PCH_JSON_H_

#include <nlohmann/json.hpp>

#include "core/pch/json_templates.h"
#include "core/pch/std.h"

#endif  // TIDEGATE_CORE_PCH_JSON_H_
