// SPDX-License-Identifier: Apache-2.0
// The limits of dns: a constant for each row of dns/limits.def. Core's limits.h says what a row holds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tidegate::dns {

#define TIDEGATE_LIMIT(constant, type, value, ...) constexpr type constant = value;
#include "dns/limits.def"
#undef TIDEGATE_LIMIT

}  // namespace tidegate::dns
