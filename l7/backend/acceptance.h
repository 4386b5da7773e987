// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tidegate::l7 {

// What the kernels know of a new connection.
enum class Acceptance : uint8_t {
  unknown,         // it is too early to tell
  acknowledged,    // the backend's kernel has it
  unanswered,      // TCP's first packet was repeated, and nobody answered
  unacknowledged,  // established, but no byte that was sent on it is acknowledged, although bytes were sent again
};

}  // namespace tidegate::l7
