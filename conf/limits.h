// SPDX-License-Identifier: Apache-2.0
// The limits of conf: constants made of conf/limits.def. core/limits.h explains a row.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "conf/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate
