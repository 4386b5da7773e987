// SPDX-License-Identifier: Apache-2.0
// XdpInterface: an interface whose queries come by AF_XDP. It has the interface's facts, the program on it, and a
// socket for each of its receive queues. Opened and closed on the main thread. XdpServers serve the sockets.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/ip.h"
#include "core/result.h"
#include "dns/xdp/program.h"
#include "dns/xdp/socket.h"

namespace tidegate::dns {

class XdpInterface {
 public:
  // `listen`: the endpoints of the server. The Error says why queries still come only through the kernel: no such
  // interface, no right to load programs, another program in force, or an MTU that is too small for some answers.
  static Result<std::unique_ptr<XdpInterface>> open(const std::string& name, const std::vector<Endpoint>& listen);

  // True if the interface is still the same as when it was opened. If the interface went away, or has another MAC,
  // other queues or (with a wildcard) other addresses, it must be opened again.
  bool is_current(const std::vector<Endpoint>& listen) const;
  // After this call, queries come through the kernel again.
  void detach() { attachment_.link.reset(); }

  const std::string& name() const { return name_; }
  const char* mode() const { return attachment_.native ? "native" : "generic"; }
  const std::vector<std::unique_ptr<XdpSocket>>& sockets() const { return sockets_; }

 private:
  // The facts of the interface for which the program and the sockets were made.
  struct Facts {
    unsigned index = 0;
    int mtu = 0;
    uint32_t queues = 1;
    XdpMatch match;

    bool operator==(const Facts&) const = default;
  };
  static Result<Facts> read_facts(const std::string& name, const std::vector<Endpoint>& listen);

  std::string name_;
  Facts facts_;
  std::vector<std::unique_ptr<XdpSocket>> sockets_;  // one for each receive queue
  XdpAttachment attachment_;
};

// The endpoints to which frames from outside can be sent. A wildcard becomes the addresses that this host has now;
// packets routed to other hosts are not for us. Loopback and link-local addresses are left to the kernel, which knows
// their links.
std::vector<Endpoint> reachable_endpoints(const std::vector<Endpoint>& listen, const std::vector<IpAddress>& of_host);

}  // namespace tidegate::dns
