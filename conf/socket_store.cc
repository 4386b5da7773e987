// SPDX-License-Identifier: Apache-2.0
#include "conf/socket_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>

#include "core/limits.h"
#include "core/log.h"

namespace tidegate {
namespace {

int option_of(int fd, int option) {
  int value = 0;
  socklen_t bytes = sizeof value;
  return ::getsockopt(fd, SOL_SOCKET, option, &value, &bytes) == 0 ? value : 0;
}

// "tcp-192.0.2.1-443-51966", "memory-1234". The last part is the descriptor's own number, because each socket of a
// group needs its own name. Empty if the socket cannot be kept.
std::string name_of(const LentSocket& socket) {
  struct stat facts {};
  const HandOverItemKind kind = socket.item.kind;
  if (kind == HandOverItemKind::memory && ::fstat(socket.fd, &facts) == 0)
    return fmt::format("memory-{}", facts.st_ino);
  const bool listens = kind == HandOverItemKind::stream || kind == HandOverItemKind::datagram;
  // If the kernel chose the port, the next process will not ask for the same one.
  if (!listens || socket.item.endpoint.port == 0 || ::fstat(socket.fd, &facts) != 0) return {};
  std::string address = socket.item.endpoint.address.to_string();
  std::replace(address.begin(), address.end(), ':', '.');
  return fmt::format("{}-{}-{}-{}", kind == HandOverItemKind::stream ? "tcp" : "udp", address,
                     socket.item.endpoint.port, facts.st_ino);
}

// Returns an Error if a plane cannot have left this descriptor.
Result<HandOverItem> judge_kept(int fd) {
  if (::fcntl(fd, F_GET_SEALS) >= 0) return HandOverItem{HandOverItemKind::memory, {}};
  sockaddr_storage address{};
  socklen_t bytes = sizeof address;
  if (::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) return fail("it is no socket");
  if (address.ss_family != AF_INET && address.ss_family != AF_INET6) return fail("it is no socket of the internet");
  const int type = option_of(fd, SO_TYPE);
  if (type != SOCK_STREAM && type != SOCK_DGRAM) return fail("it is neither TCP nor UDP");
  if (type == SOCK_STREAM && option_of(fd, SO_ACCEPTCONN) == 0) return fail("it does not listen");
  if (option_of(fd, SO_REUSEPORT) == 0) return fail("workers cannot share it");
  return HandOverItem{type == SOCK_STREAM ? HandOverItemKind::stream : HandOverItemKind::datagram,
                      Endpoint::from(address)};
}

}  // namespace

std::vector<std::pair<HandOverItem, UniqueFd>> SocketStore::take() {
  std::vector<std::pair<HandOverItem, UniqueFd>> sockets;
  for (auto& [name, fd] : manager_.take_kept()) {
    const Result<HandOverItem> item = judge_kept(fd.get());
    if (!item) {
      log_warn("the service manager kept '{}' for this process, which cannot use it: {}", name, item.error().message);
      manager_.forget(name);
      continue;
    }
    names_.emplace(name, false);
    sockets.emplace_back(*item, std::move(fd));
  }
  taken_ = sockets.size();
  if (taken_ > 0) log_info("takes {} sockets of the process before, which the service manager kept", taken_);
  return sockets;
}

void SocketStore::expect(const LentSocket& socket) {
  if (const std::string name = name_of(socket); !name.empty()) names_.emplace(name, false);
}

void SocketStore::keep(const std::vector<LentSocket>& sockets) {
  if (!manager_.is_there()) return;
  for (auto& [name, used] : names_) used = false;
  for (const LentSocket& socket : sockets) {
    const std::string name = name_of(socket);
    if (name.empty()) continue;
    const auto known = names_.find(name);
    if (known != names_.end()) {
      known->second = true;
    } else if (names_.size() < kHandOverSockets) {
      manager_.keep(name, socket.fd);
      names_.emplace(name, true);
    }
  }
  std::erase_if(names_, [this](const auto& each) {
    if (!each.second) manager_.forget(each.first);
    return !each.second;
  });
}

}  // namespace tidegate
