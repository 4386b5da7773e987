// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "l7/wire/buffer.h"

namespace tidegate::l7 {

// Upper bound of max_header: a head must fit into one block.
constexpr uint64_t kLargestHead = kBlockBytes - 2048;

}  // namespace tidegate::l7
