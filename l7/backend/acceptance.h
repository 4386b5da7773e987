// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace tidegate::l7 {

// The state of a new connection, as our kernel and the backend's kernel show it.
enum class Acceptance : uint8_t {
  unknown,         // not known yet
  acknowledged,    // the backend's kernel has accepted the connection
  unanswered,      // TCP's first packet was repeated, and nobody answered
  unacknowledged,  // established, but no byte that was sent on it is acknowledged, although bytes were sent again
};

}  // namespace tidegate::l7
