// SPDX-License-Identifier: Apache-2.0
// ICMP and ICMPv6 for our addresses. Echo requests are answered here. Errors about a flow are relayed to that flow's
// backend: only the backend can lower its path MTU (RFC 1191, RFC 8201) or give up. All functions are pure.
#pragma once

#include <cstdint>

#include "l4/drop_reason.h"
#include "l4/flow_key.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

bool is_echo_request(const uint8_t* frame, const PacketView& view);

bool has_right_checksum(const uint8_t* frame, const PacketView& view);

// Turns an echo request into its reply in place, ready to go back to the station that sent it.
void make_echo_reply(uint8_t* frame, const PacketView& view);

// Reads the flow that an ICMP error is about. The quoted packet went from the VIP to the client, so its ends are
// swapped to give the client's view of the flow. Returns icmp_unsupported if `view` is not an error. An error that
// quotes a later fragment cannot be assigned to a flow.
DropReason read_icmp_error(const uint8_t* frame, const PacketView& view, FlowTuple& flow);

}  // namespace tidegate::l4
