// SPDX-License-Identifier: Apache-2.0
// The limits of l4: a constant for each row of l4/limits.def. Core's limits.h says what a row holds.
#pragma once

#include <cstddef>

namespace tidegate::l4 {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "l4/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate::l4
