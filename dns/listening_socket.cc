// SPDX-License-Identifier: Apache-2.0
#include "dns/listening_socket.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace tidegate::dns {
namespace {

bool set_option(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

}  // namespace

bool is_wildcard(const IpAddress& address) { return address.bytes == std::array<uint8_t, 16>{}; }

Endpoint local_endpoint(int fd) {
  sockaddr_storage storage{};
  socklen_t bytes = sizeof storage;
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &bytes);
  return Endpoint::from(storage);
}

Result<UniqueFd> bind_socket(const Endpoint& endpoint, int type) {
  const auto failed = [&](const char* what) {
    return fail(fmt::format("{} {}: {}", what, endpoint.to_string(), std::strerror(errno)));
  };
  const bool v6 = endpoint.address.is_v6();
  UniqueFd fd(::socket(v6 ? AF_INET6 : AF_INET, type | SOCK_CLOEXEC, 0));
  if (!fd) return failed("socket for");
  if (!set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return failed("SO_REUSEPORT on");
  if (!set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return failed("SO_REUSEADDR on");
  if (v6 && !set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) return failed("IPV6_V6ONLY on");
  sockaddr_storage storage;
  const socklen_t bytes = endpoint.to_sockaddr(storage);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&storage), bytes) != 0) return failed("cannot listen on");
  return fd;
}

}  // namespace tidegate::dns
