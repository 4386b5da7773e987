// SPDX-License-Identifier: Apache-2.0
#include "l7/listener/listener.h"

#include <fmt/format.h>
#include <linux/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "conf/model.h"
#include "core/open_files.h"
#include "core/vanished.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr int kBacklog = 4096;
constexpr int kAcceptsPerRound = 32;  // then existing connections have their turn
constexpr uint64_t kPauseMs = 50;

}  // namespace

Result<ListenSocket> open_listen_socket(const Endpoint& bind, const Endpoint& wanted, HeldPorts& held) {
  UniqueFd fd = held.take(wanted, SOCK_STREAM);
  if (!fd) {
    Result<UniqueFd> bound = bind_shared_port(wanted, SOCK_STREAM, kListenPort);
    if (!bound) return fail(fmt::format("cannot bind {}: {}", wanted.to_string(), bound.error().message));
    fd = *std::move(bound);
  }
  const int one = 1;
  // Every accepted socket inherits it, which saves a system call each.
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  end_when_peer_vanishes(fd.get(), 0);
  if (::listen(fd.get(), kBacklog) != 0) {
    return fail(fmt::format("cannot listen on {}: {}", wanted.to_string(), std::strerror(errno)));
  }
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length);
  return ListenSocket{std::move(fd), bind, Endpoint::from(address)};
}

uint32_t find_listener(const Plan& plan, const Endpoint& bind) {
  for (const uint32_t index : plan.listeners) {
    const std::vector<Endpoint>& binds = plan.model().listeners[index].bind;
    if (std::find(binds.begin(), binds.end(), bind) != binds.end()) return index;
  }
  return kNone;
}

bool trusts(const Listener& listener, const IpAddress& peer) {
  return std::any_of(listener.trusted_proxies.begin(), listener.trusted_proxies.end(),
                     [&](const Cidr& network) { return network.contains(peer); });
}

bool sends_proxy_header(const Listener& listener, const IpAddress& peer) {
  return std::any_of(listener.proxy_protocol_from.begin(), listener.proxy_protocol_from.end(),
                     [&](const Cidr& network) { return network.contains(peer); });
}

ListenerSocket::ListenerSocket(Worker& worker, ListenSocket socket)
    : worker_(worker), socket_(std::move(socket)), pause_(worker.loop(), [this] {
        paused_ = false;
        worker_.loop().modify(socket_.fd.get(), EPOLLIN);
      }) {
  worker_.loop().add(socket_.fd.get(), EPOLLIN, this);
}

ListenerSocket::~ListenerSocket() { worker_.loop().remove(socket_.fd.get()); }

void ListenerSocket::on_io(uint32_t) {
  for (int i = 0; i < kAcceptsPerRound && accept_one(); ++i) continue;
}

void ListenerSocket::accept_all() {
  while (accept_one()) continue;
}

bool ListenerSocket::accept_one() {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  UniqueFd fd(
      ::accept4(socket_.fd.get(), reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!fd) {
    if (errno == EINTR || errno == ECONNABORTED) return true;
    const bool own_limit = is_own_limit(errno);
    if (errno == EAGAIN || (own_limit && !connection_waits(socket_.fd.get()))) return false;
    if (own_limit && worker_.free_a_descriptor()) return true;
    if (!paused_) {
      // There are no descriptors left. The connections in the backlog would wake us all the time.
      worker_.stats().accept_failures.add();
      paused_ = true;
      worker_.loop().modify(socket_.fd.get(), 0);
      pause_.arm_after_ms(kPauseMs);
    }
    return false;
  }
  Endpoint peer = Endpoint::from(address);
  peer.address = peer.address.unmapped();
  worker_.accept(std::move(fd), peer, socket_.bind);
  return true;
}

}  // namespace tidegate::l7
