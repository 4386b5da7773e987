// SPDX-License-Identifier: Apache-2.0
#include "l7/backend/connections.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "core/open_files.h"
#include "l7/limits.h"

namespace tidegate::l7 {

BackendConnections::~BackendConnections() = default;

BackendConnections::Slot& BackendConnections::slot(uint32_t backend) {
  if (backend >= slots_.size()) slots_.resize(backend + 1);
  return slots_[backend];
}

std::unique_ptr<BackendStream> BackendConnections::take_idle(const BackendRuntime& backend, const BackendPeer& peer,
                                                             bool must_be_alive) {
  Slot& s = slot(backend.id);
  if (peer.protocol != BackendProtocol::h1) {
    const bool shared_early = peer.protocol == BackendProtocol::h2 || s.speaks_http2;
    for (const std::unique_ptr<BackendH2Connection>& connection : s.http2) {
      if (!connection->leads_to(peer) || !connection->has_room(shared_early)) continue;
      if (!must_be_alive || connection->looks_alive()) return connection->open_stream();
    }
    if (peer.protocol == BackendProtocol::h2) return nullptr;
  }
  // A connection with a PROXY header belongs to one client. So other clients must not use it.
  if (!peer.preface.empty()) {
    const auto at = std::find_if(s.idle.rbegin(), s.idle.rend(), [&](const auto& kept) {
      return kept->leads_to(peer) && (!must_be_alive || kept->looks_alive());
    });
    if (at == s.idle.rend()) return nullptr;
    std::unique_ptr<BackendH1Connection> connection = std::move(*at);
    s.idle.erase(std::next(at).base());
    return connection;
  }
  while (!s.idle.empty()) {
    std::unique_ptr<BackendH1Connection> connection = std::move(s.idle.back());
    s.idle.pop_back();
    // The backend's address, or what it must prove by TLS, may have changed with the configuration.
    if (connection->leads_to(peer) && (!must_be_alive || connection->looks_alive())) return connection;
    bury(std::move(connection));
  }
  return nullptr;
}

bool BackendConnections::has_room(const BackendRuntime& backend, uint32_t max_connections, bool past_accepted) const {
  if (backend.id >= slots_.size()) return true;
  const Slot& s = slots_[backend.id];
  if (s.open < (past_accepted ? max_connections : std::min(max_connections, s.most)) || !s.idle.empty()) return true;
  return std::any_of(s.http2.begin(), s.http2.end(),
                     [&s](const auto& connection) { return connection->has_room(s.speaks_http2); });
}

std::unique_ptr<BackendStream> BackendConnections::open(const BackendRuntime& backend, const BackendPeer& peer,
                                                        uint32_t max_connections, bool past_accepted) {
  Slot& s = slot(backend.id);
  const uint32_t most = past_accepted ? max_connections : std::min(max_connections, s.most);
  if (s.open >= most && !drop_one_idle(s)) return nullptr;
  if (s.open >= most) return nullptr;
  s.pool = backend.pool;
  ++s.open;
  auto socket = std::make_unique<BackendSocket>(loop_, blocks_, peer);
  socket->connect(open_socket(peer.address), peer.idle_timeout_ms);
  if (peer.protocol == BackendProtocol::h1) {
    return std::make_unique<BackendH1Connection>(std::move(socket), *this, backend.id);
  }
  if (peer.protocol == BackendProtocol::h2) s.speaks_http2 = true;
  const auto wish =
      peer.protocol == BackendProtocol::h2 ? BackendH2Connection::Wish::must : BackendH2Connection::Wish::prefer;
  s.http2.push_back(std::make_unique<BackendH2Connection>(std::move(socket), *this, blocks_, backend.id, wish));
  return s.http2.back()->open_stream();
}

// The last descriptors are not for backends. They are not needed as long as an idle connection can be closed.
UniqueFd BackendConnections::open_socket(const BackendAddress& address) {
  for (bool again = false;; again = true) {
    UniqueFd fd(::socket(address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (fd && !is_reserved_file(fd.get())) return fd;
    if (again || (!fd && !is_own_limit(errno))) return {};
    fd.reset();
    if (!drop_one_idle() && !hooks_.free_a_descriptor()) return {};
  }
}

// Closes the idle connection that was kept longest. HTTP/1 connections come first.
bool BackendConnections::drop_one_idle(Slot& s) {
  if (!s.idle.empty()) {
    drop_idle(s.idle.front().get());
    return true;
  }
  const auto at = std::find_if(s.http2.begin(), s.http2.end(), [](const auto& kept) { return kept->idle(); });
  if (at == s.http2.end()) return false;
  drop_http2(at->get());
  return true;
}

bool BackendConnections::drop_one_idle() {
  return std::any_of(slots_.begin(), slots_.end(), [this](Slot& s) { return drop_one_idle(s); });
}

void BackendConnections::take_back(std::unique_ptr<BackendH1Connection> connection, const Pool& pool) {
  Slot& s = slot(connection->backend());
  if (s.most != UINT32_MAX && connection->anything_received()) count_ended(s);
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

void BackendConnections::drop_http2(BackendH2Connection* connection) {
  Slot& s = slot(connection->backend());
  const bool known =
      std::any_of(s.http2.begin(), s.http2.end(), [&](const auto& kept) { return kept.get() == connection; });
  if (!known) return;
  --s.open;
  if (connection->seen_acknowledged()) --s.acknowledged;
  const uint32_t pool = s.pool;
  bury_http2(connection);  // calls users, which may add slots
  hooks_.on_room(pool);
}

void BackendConnections::forget_http2(BackendH2Connection* connection) { bury_http2(connection); }

void BackendConnections::note_protocol(uint32_t backend, bool http2) {
  slot(backend).speaks_http2 = http2;
  if (http2) hooks_.http2_connections->add();
}

bool BackendConnections::note_not_accepted(const BackendRuntime& backend, uint32_t ordinal) {
  Slot& s = slot(backend.id);
  const bool first = s.most == UINT32_MAX;
  const uint32_t half = std::max<uint32_t>(ordinal, 1) / 2;
  s.most = std::min(s.most, std::max({s.acknowledged, half, 1U}));
  s.too_many = std::max(s.too_many, ordinal);
  s.ended = 0;
  return first;
}

void BackendConnections::note_acknowledged(uint32_t backend) {
  Slot& s = slot(backend);
  ++s.acknowledged;
  if (s.most < s.acknowledged) s.most = s.acknowledged;
}

// The bound grows only while it is reached. It ends when it is far above the number that was too large.
void BackendConnections::count_ended(Slot& s) {
  if (s.open < s.most || ++s.ended < kAnswersPerConnection) return;
  s.ended = 0;
  if (++s.most < 2 * std::max<uint32_t>(s.too_many, 2)) return;
  s.most = UINT32_MAX;
  s.too_many = 0;
}

void BackendConnections::close_all_idle() {
  for (Slot& s : slots_) {
    while (drop_one_idle(s)) continue;
  }
}

void BackendConnections::close_idle(uint32_t backend) {
  Slot& s = slot(backend);
  while (drop_one_idle(s)) continue;
}

void BackendConnections::bury(std::unique_ptr<BackendH1Connection> connection) {
  Slot& s = slot(connection->backend());
  --s.open;
  if (connection->seen_acknowledged()) --s.acknowledged;
  hooks_.on_room(s.pool);
  connection->close();
  if (buried_.empty() && buried_http2_.empty()) loop_.defer([this] { empty_graves(); });
  buried_.push_back(std::move(connection));
}

void BackendConnections::bury_http2(BackendH2Connection* connection) {
  std::vector<std::unique_ptr<BackendH2Connection>>& all = slot(connection->backend()).http2;
  const auto at = std::find_if(all.begin(), all.end(), [&](const auto& kept) { return kept.get() == connection; });
  if (at == all.end()) return;
  if (std::exchange(connection->awaits_round_end, false)) std::erase(at_round_end_, connection);
  if (buried_.empty() && buried_http2_.empty()) loop_.defer([this] { empty_graves(); });
  buried_http2_.push_back(std::move(*at));
  all.erase(at);
  connection->close(Failure::backend_closed);
}

void BackendConnections::empty_graves() {
  buried_.clear();
  buried_http2_.clear();
}

void BackendConnections::call_at_round_end(BackendH2Connection& connection) {
  if (connection.awaits_round_end) return;
  connection.awaits_round_end = true;
  at_round_end_.push_back(&connection);
  defer_round_end();
}

void BackendConnections::defer_round_end() {
  if (std::exchange(round_end_deferred_, true)) return;
  loop_.defer([this] { end_round(); });
}

// A call may end a connection, or ask for another round.
void BackendConnections::end_round() {
  round_end_deferred_ = false;
  for (size_t turns = at_round_end_.size(); turns > 0 && !at_round_end_.empty(); --turns) {
    BackendH2Connection* const connection = at_round_end_.front();
    at_round_end_.erase(at_round_end_.begin());
    connection->awaits_round_end = false;
    connection->on_round_end();
  }
  if (!at_round_end_.empty()) defer_round_end();
}

}  // namespace tidegate::l7
