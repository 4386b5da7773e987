// SPDX-License-Identifier: Apache-2.0
// The limits of core, and the shape of every room's table of limits.
//
// A resource that a peer can use has a bound. Each bound is one row of its room's `limits.def`:
//    TIDEGATE_LIMIT(constant, type, value, "unit", "why this value", "what happens at it", "counter, or -")
// The room's `limits.h` makes constants from the rows. tests/unit/rooms makes LIMITS.md from the same rows.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "core/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate
