// SPDX-License-Identifier: Apache-2.0
// Frame: a received frame as the stages see it, borrowed from a packet buffer.
#pragma once

#include <cstdint>

namespace tidegate::l4 {

// A frame in a buffer, borrowed for one call: `capacity` bytes may be used from `data` on, and `headroom` bytes before
// it. An answer may be longer than the request. A frame whose priority tag was removed begins kTagBytes later than on
// arrival. A frame that got an outer header begins earlier.
struct Frame {
  uint8_t* data = nullptr;
  uint32_t bytes = 0;
  uint32_t capacity = 0;
  uint16_t port = 0;        // the port it came in by
  uint8_t asked = 0;        // how many workers have already looked for its flow and not found it
  bool learn_only = false;  // a copy of a frame that another worker has handled: only neighbours are learned from it
  uint32_t headroom = 0;
};

}  // namespace tidegate::l4
