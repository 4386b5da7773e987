// SPDX-License-Identifier: Apache-2.0
// Functions for every listening socket of this plane.
#pragma once

#include "core/fd.h"
#include "core/ip.h"
#include "core/result.h"
#include "core/shared_port.h"

namespace tidegate::dns {

// A socket of `type` (SOCK_DGRAM, SOCK_STREAM) on a shared port of the endpoint: a held socket, or else a new one.
Result<UniqueFd> bind_socket(const Endpoint& endpoint, int type, HeldPorts& held);
Endpoint local_endpoint(int fd);
// True if the address stands for every address of the host.
bool is_wildcard(const IpAddress& address);

}  // namespace tidegate::dns
