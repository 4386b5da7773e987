// SPDX-License-Identifier: Apache-2.0
// The standard library and JSON. See std.h.
#pragma once

#include <nlohmann/json.hpp>

#include "core/pch/std.h"
