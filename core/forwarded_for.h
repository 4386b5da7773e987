// SPDX-License-Identifier: Apache-2.0
// The client of a request that came through proxies, read from X-Forwarded-For. One reading for every plane.
//
// Each proxy appends the address of whoever spoke to it. So the list is read from its right end, and only as long as
// the hop that wrote an element is trusted: what stands left of the first untrusted address is that client's own claim.
// It fails closed: an element that is no address ($remote_addr of a unix socket, "unknown", a name that hides one, an
// empty one) ends the walk at the hop that wrote it. Pure; allocates nothing.
#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "core/ip.h"

namespace tidegate {

// One element, with white space around it: "192.0.2.1", "192.0.2.1:51234", "2001:db8::1", "[2001:db8::1]" or
// "[2001:db8::1]:443", as proxies write them. IPv4-mapped addresses become IPv4. Nothing for any other text.
std::optional<IpAddress> parse_forwarded_hop(std::string_view element);

bool is_trusted_proxy(const IpAddress& address, const std::vector<Cidr>& trusted);

class ForwardedForWalk {
 public:
  // `peer`: who spoke to us; nothing over a unix socket, which only those can open who are as trusted as any proxy.
  // `trusted` must outlive the walk.
  ForwardedForWalk(const std::optional<IpAddress>& peer, const std::vector<Cidr>& trusted)
      : client_(peer.value_or(IpAddress{})), trusted_(trusted), over_(peer && !is_trusted_proxy(*peer, trusted)) {}

  // Takes the value of one X-Forwarded-For field. The fields of a message together are one list (RFC 9110 §5.3): its
  // last field is taken first.
  void take(std::string_view value);
  bool over() const { return over_; }  // further fields change nothing
  const IpAddress& client() const { return client_; }

 private:
  IpAddress client_;
  const std::vector<Cidr>& trusted_;
  bool over_;
};

}  // namespace tidegate
