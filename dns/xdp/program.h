// SPDX-License-Identifier: Apache-2.0
// XdpProgram: which frames of an interface come to us by AF_XDP. A program for the kernel (XDP), assembled here for the
// addresses and ports that are listened on, so that no compiler for it is needed.
//
// It takes whole UDP datagrams to one of those endpoints and to the interface's own MAC: IPv4 without options, not a
// fragment; IPv6 without extension headers; lengths that agree; not longer than kMaxQueryFrameBytes; from a source that
// may be answered. All else passes to the kernel unchanged, where the ordinary sockets answer or the kernel drops what
// is to be dropped: ARP, neighbour discovery, TCP, fragments, VLAN tags, other ports. So does what comes to a queue
// without a socket.
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
  std::vector<Endpoint> endpoints;  // no wildcards

  bool operator==(const XdpMatch&) const = default;
};

// The instructions; `sockets_fd` is a map from receive queue to socket. An Error for more endpoints than jumps can
// cross.
Result<std::vector<bpf_insn>> assemble_xdp(const XdpMatch& match, int sockets_fd);

// Loads instructions as an XDP program; the Error has the kernel's reason.
Result<UniqueFd> load_xdp(const std::vector<bpf_insn>& instructions);

// A program in force on an interface. The kernel takes it off when this, or the process, is gone.
struct XdpAttachment {
  // Frames of that receive queue go to this socket from now on.
  Result<void> enter(uint32_t queue, int socket_fd) const;

  UniqueFd sockets;  // the map from receive queue to socket
  UniqueFd link;
  bool native = false;  // in the driver; else generic, behind its receive path
};
Result<XdpAttachment> attach_xdp(const XdpMatch& match, uint32_t queues, unsigned interface_index);

}  // namespace tidegate::dns
