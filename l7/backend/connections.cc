// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/connections.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "core/open_files.h"

namespace tidegate::l7 {

BackendConnections::Slot& BackendConnections::slot(uint32_t backend) {
  if (backend >= slots_.size()) slots_.resize(backend + 1);
  return slots_[backend];
}

std::unique_ptr<BackendStream> BackendConnections::take_idle(const BackendRuntime& backend, const BackendPeer& peer,
                                                             bool must_be_alive) {
  Slot& s = slot(backend.id);
  while (!s.idle.empty()) {
    std::unique_ptr<BackendH1Connection> connection = std::move(s.idle.back());
    s.idle.pop_back();
    // The backend's address, or what it must prove by TLS, may have changed with the configuration.
    if (connection->leads_to(peer) && (!must_be_alive || connection->looks_alive())) return connection;
    bury(std::move(connection));
  }
  return nullptr;
}

std::unique_ptr<BackendStream> BackendConnections::open(const BackendRuntime& backend, const BackendPeer& peer,
                                                        uint32_t max_connections) {
  Slot& s = slot(backend.id);
  if (s.open >= max_connections && !s.idle.empty()) drop_idle(s.idle.front().get());
  if (s.open >= max_connections) return nullptr;
  s.pool = backend.pool;
  ++s.open;
  auto socket = std::make_unique<BackendSocket>(loop_, blocks_, peer);
  socket->connect(open_socket(peer.endpoint), peer.idle_timeout_ms);
  return std::make_unique<BackendH1Connection>(std::move(socket), *this, backend.id);
}

// The last descriptors are not for backends; nor are they needed while something idle has one.
UniqueFd BackendConnections::open_socket(const Endpoint& endpoint) {
  const int family = endpoint.address.is_v4() ? AF_INET : AF_INET6;
  for (bool again = false;; again = true) {
    UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd && !is_reserved_file(fd.get())) return fd;
    if (again || (!fd && !is_own_limit(errno))) return {};
    fd.reset();
    if (!drop_one_idle() && !hooks_.free_a_descriptor()) return {};
  }
}

bool BackendConnections::drop_one_idle() {
  for (Slot& s : slots_) {
    if (s.idle.empty()) continue;
    drop_idle(s.idle.front().get());  // the one kept longest
    return true;
  }
  return false;
}

void BackendConnections::take_back(std::unique_ptr<BackendH1Connection> connection, const Pool& pool) {
  Slot& s = slot(connection->backend());
  if (!connection->reusable() || s.idle.size() >= pool.keepalive_connections) return bury(std::move(connection));
  connection->rest(pool.keepalive_timeout_ms);
  s.idle.push_back(std::move(connection));
  hooks_.on_room(s.pool);
}

void BackendConnections::drop_idle(BackendH1Connection* connection) {
  std::vector<std::unique_ptr<BackendH1Connection>>& idle = slot(connection->backend()).idle;
  const auto it = std::find_if(idle.begin(), idle.end(), [&](const auto& kept) { return kept.get() == connection; });
  if (it == idle.end()) return;
  std::unique_ptr<BackendH1Connection> dropped = std::move(*it);
  idle.erase(it);
  bury(std::move(dropped));
}

void BackendConnections::close_all_idle() {
  for (Slot& s : slots_) {
    while (!s.idle.empty()) drop_idle(s.idle.back().get());
  }
}

void BackendConnections::close_idle(uint32_t backend) {
  Slot& s = slot(backend);
  while (!s.idle.empty()) drop_idle(s.idle.back().get());
}

void BackendConnections::bury(std::unique_ptr<BackendH1Connection> connection) {
  Slot& s = slot(connection->backend());
  --s.open;
  hooks_.on_room(s.pool);
  connection->close();
  if (buried_.empty()) loop_.defer([this] { buried_.clear(); });
  buried_.push_back(std::move(connection));
}

}  // namespace tidegate::l7
