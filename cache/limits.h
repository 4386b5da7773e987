// SPDX-License-Identifier: Apache-2.0
// A constant for each row of cache/limits.def. core/limits.h says what a row holds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate::cache {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "cache/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate::cache
