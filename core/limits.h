// SPDX-License-Identifier: Apache-2.0
// Limits of core, and the shape of every room's table of limits.
//
// A resource that a peer can use has a bound. Each bound is one row of its room's `limits.def`:
//
//   TIDEGATE_LIMIT(constant, type, value, "unit", "why this value", "what happens at it", "counter, or -")
//
// The room's `limits.h` makes the constants of the rows. LIMITS.md is made of the same rows by tests/unit/rooms.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "core/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate
