// SPDX-License-Identifier: Apache-2.0
// The forwarding mode l2dsr: direct return on the link.
#pragma once

#include <cstdint>
#include <cstring>

#include "l4/neighbour.h"

namespace tidegate::l4 {

// l2dsr: only the frame's MAC addresses change: the source becomes ours, the destination becomes the backend's. The
// backend holds the VIP and answers the client directly. This is bridging, not routing: the IP header stays as it is,
// including its TTL, so no checksum changes.
inline void rewrite_l2dsr(uint8_t* frame, const NextHop& hop) {
  std::memcpy(frame, hop.ethernet_addresses, sizeof hop.ethernet_addresses);
}

}  // namespace tidegate::l4
