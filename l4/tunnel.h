// SPDX-License-Identifier: Apache-2.0
// The work of the tunnelling modes on one frame: they put the outer header before the packet, or turn a packet that is
// too long into the ICMP error for it. Pure functions of bytes.
#pragma once

#include <cstdint>

#include "l4/action.h"
#include "l4/drop_reason.h"
#include "l4/frame.h"

namespace tidegate::l4 {

// Puts the action's outer header before the packet that begins at `l3_offset` of the frame, and room for Ethernet
// addresses before that, with the EtherType set. Ethernet padding after the packet is cut off. `flow_hash` chooses the
// outer source's host bits, the UDP source port and the flow label, so that a backend's queues share the work.
// `link_mtu` is the MTU of the port by which the frame leaves. Returns exceeds_mtu if the result would be longer than
// the path or the link takes, no_headroom if the buffer has no room; then the frame is as before. `second` is the
// action of a second backend that the header also names, or null. can_name(action, second) must hold.
DropReason encapsulate(const Action& action, const Action* second, uint64_t flow_hash, uint32_t link_mtu,
                       size_t l3_offset, Frame& frame);

// The longest packet of a client that fits into the tunnel.
uint32_t inner_mtu(const Action& action, const Action* second, uint32_t link_mtu);

// Turns a frame whose packet is longer than `mtu` into "packet too big" for its sender: ICMP type 3 code 4 (RFC 1191)
// or ICMPv6 type 2 (RFC 4443 §3.2), from the address that the packet was for. The frame is ready to go back to the
// station that sent it. Returns false, and changes nothing, if the error is not allowed or would be ignored: IPv4
// without DF, a later fragment, ICMP (RFC 1122 §3.2.2).
bool make_too_big(Frame& frame, size_t l3_offset, uint32_t mtu);

}  // namespace tidegate::l4
