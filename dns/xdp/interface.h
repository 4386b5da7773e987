// SPDX-License-Identifier: Apache-2.0
// XdpInterface: an interface whose queries come by AF_XDP: its facts, the program on it, and a socket for each of its
// receive queues. Opened and closed on the main thread; the sockets are served by XdpServers.
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
  // `listen`: what is listened on. The Error says why queries go on coming through the kernel alone: no such interface,
  // no right to load programs, another program in force, an MTU that not every answer fits.
  static Result<std::unique_ptr<XdpInterface>> open(const std::string& name, const std::vector<Endpoint>& listen);

  // Whether it is what was opened still: an interface that went away, has another MAC, other queues or (behind a
  // wildcard) other addresses is to be opened anew.
  bool is_current(const std::vector<Endpoint>& listen) const;
  // From then on, queries come through the kernel again.
  void detach() { attachment_.link.reset(); }

  const std::string& name() const { return name_; }
  const char* mode() const { return attachment_.native ? "native" : "generic"; }
  const std::vector<std::unique_ptr<XdpSocket>>& sockets() const { return sockets_; }

 private:
  // What the program and the sockets were made for.
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
  std::vector<std::unique_ptr<XdpSocket>> sockets_;  // one a receive queue
  XdpAttachment attachment_;
};

// The endpoints that frames from outside can be for. A wildcard becomes the addresses that this host has now: what is
// routed to others is none of ours. Loopback and link-local addresses are left to the kernel, which knows what belongs
// to which link.
std::vector<Endpoint> reachable_endpoints(const std::vector<Endpoint>& listen, const std::vector<IpAddress>& of_host);

}  // namespace tidegate::dns
