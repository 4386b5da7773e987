// SPDX-License-Identifier: Apache-2.0
// The RST with which a VIP answers a TCP packet of an unknown flow (RFC 9293 §3.10.7.1).
#pragma once

#include "l4/frame.h"

namespace tidegate::l4 {

// Turns the frame of a TCP packet into the RST for its sender, in place. Returns false, and does not change the frame,
// if no answer is allowed: the packet is an RST itself, a fragment, or not TCP. The RST is never longer than the
// packet.
bool make_reset(Frame& frame);

}  // namespace tidegate::l4
