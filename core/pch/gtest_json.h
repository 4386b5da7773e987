// SPDX-License-Identifier: Apache-2.0
// GoogleTest and JSON. See std.h.
#pragma once

#include <nlohmann/json.hpp>

#include "core/pch/gtest.h"
