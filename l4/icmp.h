// SPDX-License-Identifier: Apache-2.0
// ICMP and ICMPv6 for our addresses: echo, answered here; errors about a flow, to be relayed to that flow's backend,
// which alone can lower its path MTU (RFC 1191, RFC 8201) or give up. Pure.
#pragma once

#include <cstdint>

#include "l4/drop_reason.h"
#include "l4/flow_key.h"
#include "l4/packet_view.h"

namespace tidegate::l4 {

bool is_echo_request(const uint8_t* frame, const PacketView& view);

bool has_right_checksum(const uint8_t* frame, const PacketView& view);

// Turns an echo request into its reply where it lies, ready to go back to the station that sent it.
void make_echo_reply(uint8_t* frame, const PacketView& view);

// The flow that an ICMP error is about. The quoted packet went from the VIP to the client, so its ends are swapped into
// the client's view of the flow. icmp_unsupported when `view` is no error; errors that quote a later fragment are not
// attributable.
DropReason read_icmp_error(const uint8_t* frame, const PacketView& view, FlowTuple& flow);

}  // namespace tidegate::l4
