// SPDX-License-Identifier: Apache-2.0
// XdpProgram: which frames of an interface come to us by AF_XDP. It is a program for the kernel (XDP). It is assembled
// here for the server's addresses and ports, so that no compiler is needed.
//
// It takes whole UDP datagrams to one of those endpoints and to the interface's own MAC: IPv4 without options, not a
// fragment; IPv6 without extension headers; lengths that agree; not longer than kMaxQueryFrameBytes; from a source that
// may be answered. Everything else goes to the kernel unchanged: ARP, neighbour discovery, TCP, fragments, VLAN tags,
// other ports. There the ordinary sockets answer, or the kernel drops it. Frames of a queue without a socket go to the
// kernel too.
#pragma once

#include <linux/bpf.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate::dns {

constexpr size_t kMaxQueryFrameBytes = 1'600;

struct XdpMatch {
  std::array<uint8_t, 6> mac{};
  std::vector<Endpoint> endpoints;  // has no wildcards

  bool operator==(const XdpMatch&) const = default;
};

// The instructions. `sockets_fd` is a map from receive queue to socket. Returns an Error if there are more endpoints
// than jumps can cross.
Result<std::vector<bpf_insn>> assemble_xdp(const XdpMatch& match, int sockets_fd);

// Loads instructions as an XDP program; the Error has the kernel's reason.
Result<UniqueFd> load_xdp(const std::vector<bpf_insn>& instructions);

// A program in force on an interface. The kernel removes it when this object or the process is gone.
struct XdpAttachment {
  // From now on frames of that receive queue go to this socket.
  Result<void> enter(uint32_t queue, int socket_fd) const;

  UniqueFd sockets;  // the map from receive queue to socket
  UniqueFd link;
  bool native = false;  // true: in the driver; false: generic, after the driver's receive path
};
Result<XdpAttachment> attach_xdp(const XdpMatch& match, uint32_t queues, unsigned interface_index);

}  // namespace tidegate::dns
