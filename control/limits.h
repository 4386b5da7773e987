// SPDX-License-Identifier: Apache-2.0
// The limits of control: a constant for each row of control/limits.def. Core's limits.h says what a row holds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "control/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate
