// SPDX-License-Identifier: Apache-2.0
#include "core/shared_port.h"

#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>

#include "core/assert.h"

namespace tidegate {
namespace {

bool set_option(int fd, int level, int option, int value) {
  return ::setsockopt(fd, level, option, &value, sizeof value) == 0;
}

Error last_error() { return fail(std::strerror(errno)); }

bool is_wildcard(const IpAddress& address) { return address.bytes == std::array<uint8_t, 16>{}; }

UniqueFd make_socket(const Endpoint& endpoint, int type, bool free_bind) {
  const bool v6 = endpoint.address.is_v6();
  const int flags = type == SOCK_STREAM ? SOCK_NONBLOCK | SOCK_CLOEXEC : SOCK_CLOEXEC;
  UniqueFd fd(::socket(v6 ? AF_INET6 : AF_INET, type | flags, 0));
  if (!fd) return fd;
  if (v6 && !set_option(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) return {};
  if (free_bind)
    v6 ? set_option(fd.get(), IPPROTO_IPV6, IPV6_FREEBIND, 1) : set_option(fd.get(), IPPROTO_IP, IP_FREEBIND, 1);
  return fd;
}

bool bind_to(int fd, const Endpoint& endpoint) {
  sockaddr_storage address{};
  const socklen_t length = endpoint.to_sockaddr(address);
  return ::bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0;
}

// Before bind(): a datagram that arrived in between would wait in the queue.
bool drop_everything(int fd) {
  sock_filter drop = {BPF_RET | BPF_K, 0, 0, 0};
  const sock_fprog program = {1, &drop};
  return ::setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0;
}

// A TCP port that is bound with SO_REUSEADDR can be taken by another process until it listens. So that option is set
// after bind(), unless connections of an earlier process still use the port. It must be set, because connections
// inherit it, and the next process must be able to bind beside them.
bool bind_stream(int fd, const Endpoint& endpoint) {
  if (bind_to(fd, endpoint)) return set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  return errno == EADDRINUSE && set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1) && bind_to(fd, endpoint);
}

Result<UniqueFd> bind_port(const Endpoint& endpoint, int type, PortOptions options, bool held) {
  UniqueFd fd = make_socket(endpoint, type, options.free_bind);
  if (!fd || !set_option(fd.get(), SOL_SOCKET, SO_REUSEPORT, 1)) return last_error();
  if (held && type == SOCK_DGRAM && !drop_everything(fd.get())) return last_error();
  const bool bound = type == SOCK_STREAM ? bind_stream(fd.get(), endpoint) : bind_to(fd.get(), endpoint);
  if (!bound) return last_error();
  // While it is held, nobody may join by SO_REUSEADDR.
  if (held && type == SOCK_STREAM) set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 0);
  return fd;
}

}  // namespace

bool share_a_port(const Endpoint& a, const Endpoint& b) {
  return a.port == b.port && a.address.is_v6() == b.address.is_v6() &&
         (a.address == b.address || is_wildcard(a.address) || is_wildcard(b.address));
}

Result<void> check_port_is_free(const Endpoint& endpoint, int type) {
  const UniqueFd fd = make_socket(endpoint, type, true);
  if (!fd) return last_error();
  // With it, connections that an earlier process left do not make bind() fail. For UDP it would share the port.
  if (type == SOCK_STREAM && !set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1)) return last_error();
  if (!bind_to(fd.get(), endpoint) && errno == EADDRINUSE) return last_error();
  return {};
}

Result<UniqueFd> bind_shared_port(const Endpoint& endpoint, int type, PortOptions options) {
  return bind_port(endpoint, type, options, false);
}

Result<void> HeldPorts::hold(const Endpoint& endpoint, int type, size_t count, PortOptions options) {
  TIDEGATE_ASSERT(endpoint.port != 0, "a port that the kernel chooses cannot be held");
  if (holds(endpoint, type)) return {};
  std::vector<UniqueFd> sockets;
  for (size_t i = 0; i < count; ++i) {
    Result<UniqueFd> socket = bind_port(endpoint, type, options, true);
    if (!socket) return socket.error();
    sockets.push_back(*std::move(socket));
  }
  sockets_.emplace(std::pair(type, endpoint), std::move(sockets));
  return {};
}

void HeldPorts::adopt(const Endpoint& endpoint, int type, UniqueFd socket) {
  sockets_[{type, endpoint}].push_back(std::move(socket));
}

bool HeldPorts::holds_more(const Endpoint& endpoint, int type) const {
  const auto found = sockets_.find({type, endpoint});
  return found != sockets_.end() && !found->second.empty();
}

bool HeldPorts::meets(const Endpoint& endpoint, int type) const {
  for (const auto& [place, sockets] : sockets_) {
    if (place.first == type && share_a_port(place.second, endpoint)) return true;
  }
  return false;
}

UniqueFd HeldPorts::take(const Endpoint& endpoint, int type) {
  const auto found = sockets_.find({type, endpoint});
  if (found == sockets_.end() || found->second.empty()) return {};
  UniqueFd fd = std::move(found->second.back());
  found->second.pop_back();
  if (type == SOCK_STREAM) {
    set_option(fd.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  } else {
    const int unused = 0;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_DETACH_FILTER, &unused, sizeof unused);
  }
  return fd;
}

}  // namespace tidegate
