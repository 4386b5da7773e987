// SPDX-License-Identifier: Apache-2.0
// Any bytes as one frame, on a heap buffer of their exact size, so that the sanitizer finds a read beyond it.
#include <algorithm>
#include <cstdlib>
#include <memory>

#include "l4/icmp.h"
#include "l4/neighbour_wire.h"
#include "l4/packet_view.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidegate::l4;
  const std::unique_ptr<uint8_t[]> frame(new uint8_t[size]);
  std::copy(data, data + size, frame.get());
  PacketView view;
  if (parse_frame(frame.get(), size, view) != DropReason::none) return 0;
  // The offsets in a view must be valid, because later code relies on them.
  if (view.kind != PacketKind::arp && (view.l4_offset < view.l3_offset || view.l4_offset + view.l4_bytes > size))
    abort();
  NeighbourMessage message;
  if (view.kind == PacketKind::arp) {
    static_cast<void>(read_arp(frame.get(), size, view.l3_offset, message));
  } else if (is_nd(frame.get(), view)) {
    static_cast<void>(read_nd(frame.get(), view, message));
  } else if (view.kind == PacketKind::icmp) {
    FlowTuple flow;
    static_cast<void>(read_icmp_error(frame.get(), view, flow));
    if (is_echo_request(frame.get(), view)) make_echo_reply(frame.get(), view);
  }
  return 0;
}
