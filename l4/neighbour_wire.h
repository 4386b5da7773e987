// SPDX-License-Identifier: Apache-2.0
// ARP (RFC 826) and IPv6 neighbour discovery (RFC 4861) on the wire: reads the messages of others and writes ours. Pure
// functions: bytes in, bytes out.
#pragma once

#include <cstddef>
#include <cstdint>

#include "l4/drop_reason.h"
#include "l4/packet_view.h"
#include "l4/wire.h"

namespace tidegate::l4 {

// The content of one ARP packet, neighbour solicitation or neighbour advertisement.
struct NeighbourMessage {
  bool is_request = false;
  IpAddress sender;  // the address whose MAC is given; all zero: none (an ARP probe, duplicate address detection)
  Mac sender_mac;    // zero if the message carries none
  Mac answer_to;     // the station from which the frame came
  IpAddress target;  // the address that is asked for; in an answer: the sender again
};

// `frame` must hold an ARP packet at `offset`.
DropReason read_arp(const uint8_t* frame, size_t bytes, size_t offset, NeighbourMessage& message);
// `view` must be of an ICMPv6 packet of type 135 or 136.
DropReason read_nd(const uint8_t* frame, const PacketView& view, NeighbourMessage& message);
bool is_nd(const uint8_t* frame, const PacketView& view);

// The largest frame that the functions below write: Ethernet, IPv6, a solicitation with one option.
constexpr size_t kMaxNeighbourFrameBytes = kEthernetBytes + 40 + 24 + 8;

struct OwnIdentity {
  Mac mac;
  IpAddress address;  // all zero: we have none of this family
};

// Each function writes a whole frame into `out` (kMaxNeighbourFrameBytes) and returns its length. write_request sends
// to `unicast_to` if a known answer must only be confirmed. Otherwise it sends to broadcast or to the solicited-node
// group.
size_t write_request(uint8_t* out, const OwnIdentity& own, const IpAddress& target, const Mac* unicast_to);
// Writes the answer to `question`: `own.address` is at `own.mac`.
size_t write_answer(uint8_t* out, const OwnIdentity& own, const NeighbourMessage& question);
// Writes a gratuitous ARP request (RFC 5227 §3) or an unsolicited advertisement (RFC 4861 §7.2.6).
size_t write_announcement(uint8_t* out, const OwnIdentity& own);

// The multicast group to which requests for `target` are sent (RFC 4291 §2.7.1).
IpAddress solicited_node(const IpAddress& target);
// fe80::/64 with the interface identifier of RFC 4291, appendix A. It is our source address if no IPv6 address is
// configured.
IpAddress link_local_of(const Mac& mac);

}  // namespace tidegate::l4
