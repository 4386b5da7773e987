// SPDX-License-Identifier: Apache-2.0
// The limits of l7: a constant for each row of l7/limits.def. Core's limits.h says what a row holds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate::l7 {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "l7/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate::l7
