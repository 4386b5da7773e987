// SPDX-License-Identifier: Apache-2.0
// Reads X-Forwarded-For to find the client of a request that came through proxies. The proxy and the name server, the
// two planes that need it, both use it.
//
// Each proxy appends the address of its own peer. So the list is read from its right end, and only while the hop that
// wrote an element is trusted: everything left of the first untrusted address is only that client's claim. An element
// that is not an address ends the walk at the hop that wrote it, which is the safe side. Examples are $remote_addr of a
// unix socket, "unknown", a name that hides an address, and an empty element. Pure; allocates nothing.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/ip.h"

namespace tidegate {

// Parses one element with white space around it: "192.0.2.1", "192.0.2.1:51234", "2001:db8::1", "[2001:db8::1]" or
// "[2001:db8::1]:443", as proxies write them. IPv4-mapped addresses become IPv4. Returns nothing for any other text.
std::optional<IpAddress> parse_forwarded_hop(std::string_view element);

bool is_trusted_proxy(const IpAddress& address, const std::vector<Cidr>& trusted);

class ForwardedForWalk {
 public:
  // `peer` is the address of our peer. It is nothing for a unix socket: a client that may open the socket is trusted
  // like a proxy. `trusted` must outlive the walk.
  ForwardedForWalk(const std::optional<IpAddress>& peer, const std::vector<Cidr>& trusted)
      : client_(peer.value_or(IpAddress{})), trusted_(trusted), over_(peer && !is_trusted_proxy(*peer, trusted)) {}

  // Takes the value of one X-Forwarded-For field. The fields of a message together are one list (RFC 9110 §5.3), so
  // call it for the last field first.
  void take(std::string_view value);
  bool over() const { return over_; }  // true if further fields change nothing
  const IpAddress& client() const { return client_; }

 private:
  IpAddress client_;
  const std::vector<Cidr>& trusted_;
  bool over_;
};

}  // namespace tidegate
