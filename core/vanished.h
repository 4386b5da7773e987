// SPDX-License-Identifier: Apache-2.0
// Peers that vanish without closing: a laptop goes to sleep, a host loses power. Only the kernel can notice that.
#pragma once

#include <cstdint>

namespace tidegate {

// From now on the kernel ends this TCP socket, or those that are accepted from it, when the peer has acknowledged
// nothing for kVanishedMs. A silent connection is probed (RFC 9293 §3.8.4). One with unacknowledged data has a user
// timeout (RFC 5482). A peer that acknowledges but keeps its window shut only pauses: it may do so for `pause_ms`.
void end_when_peer_vanishes(int fd, uint64_t pause_ms);

}  // namespace tidegate
