// SPDX-License-Identifier: Apache-2.0
#include "dns/listening_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <array>

namespace tidegate::dns {
bool is_wildcard(const IpAddress& address) { return address.bytes == std::array<uint8_t, 16>{}; }

Endpoint local_endpoint(int fd) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &bytes);
  return Endpoint::from(storage);
}

Result<UniqueFd> bind_socket(const Endpoint& endpoint, int type, HeldPorts& held) {
  if (UniqueFd fd = held.take(endpoint, type)) return fd;
  Result<UniqueFd> fd = bind_shared_port(endpoint, type);
  if (!fd) return fail(fmt::format("cannot listen on {}: {}", endpoint.to_string(), fd.error().message));
  return fd;
}

}  // namespace tidegate::dns
