// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tidegate::l7 {

// What the kernels know of a new connection.
enum class Acceptance : uint8_t {
  unknown,         // it is too early to tell
  acknowledged,    // the backend's kernel has it
  unanswered,      // TCP's first packet was repeated, and nobody answers
  unacknowledged,  // it stands, but not a byte of what was sent on it is acknowledged, although it was sent again
};

}  // namespace tidegate::l7
