// SPDX-License-Identifier: Apache-2.0
// GoogleTest and JSON. See std.h.
#ifndef TIDEGATE_CORE_PCH_GTEST_JSON_H_
#define TIDEGATE_CORE_PCH_GTEST_JSON_H_

#include <nlohmann/json.hpp>

#include "core/pch/gtest.h"
#include "core/pch/json_templates.h"

#endif  // TIDEGATE_CORE_PCH_GTEST_JSON_H_
