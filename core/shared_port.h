// SPDX-License-Identifier: Apache-2.0
// Ports that the workers of one process share by SO_REUSEPORT, and how one is held before it is used.
//
// The kernel lets any process of the same user join a port that is shared. So a port that this process does not have is
// first bound alone (check_port_is_free), and only then shared. A held TCP port is bound but does not listen. A held
// UDP port drops every datagram until take(), so no client waits for an answer from it.
//
// Threads: one at a time.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate {

// True if two sockets of one type conflict on these endpoints. They conflict if family and port are the same, and if
// the addresses are the same or one of them is the wildcard.
bool share_a_port(const Endpoint& a, const Endpoint& b);

// An Error ("Address already in use") if any other socket has the port. `type` is SOCK_STREAM or SOCK_DGRAM. An address
// that this host does not have is no Error.
Result<void> check_port_is_free(const Endpoint& endpoint, int type);

struct PortOptions {
  bool free_bind = false;  // the address may come later (IP_FREEBIND)
};
// Returns a socket that is bound to a shared port. TCP does not block, and IPv6 takes no IPv4. The Error is the
// system's reason alone.
Result<UniqueFd> bind_shared_port(const Endpoint& endpoint, int type, PortOptions options = {});

// Sockets that wait for the version that needs them.
class HeldPorts {
 public:
  // Holds `count` sockets on the port; none of them after an Error. A port that is already held stays as it is.
  Result<void> hold(const Endpoint& endpoint, int type, size_t count, PortOptions options = {});
  // Adds a socket that another process handed over. It listens, and receives, already.
  void adopt(const Endpoint& endpoint, int type, UniqueFd socket);
  // Takes a held socket, which receives from now on. Empty if none is left.
  UniqueFd take(const Endpoint& endpoint, int type);
  bool holds(const Endpoint& endpoint, int type) const { return sockets_.contains({type, endpoint}); }
  bool holds_more(const Endpoint& endpoint, int type) const;  // take() has one
  // True if a held socket of that type conflicts with the endpoint (share_a_port).
  bool meets(const Endpoint& endpoint, int type) const;
  void clear() { sockets_.clear(); }

 private:
  std::map<std::pair<int, Endpoint>, std::vector<UniqueFd>> sockets_;
};

}  // namespace tidegate
