// SPDX-License-Identifier: Apache-2.0
// What every listening socket of this plane shares.
#pragma once

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"

namespace tidegate::dns {

// A socket of `type` (SOCK_DGRAM, SOCK_STREAM, with flags), bound to the endpoint together with others (SO_REUSEPORT).
// One of IPv6 takes no IPv4.
Result<UniqueFd> bind_socket(const Endpoint& endpoint, int type);
Endpoint local_endpoint(int fd);
// Every address of the host.
bool is_wildcard(const IpAddress& address);

}  // namespace tidegate::dns
