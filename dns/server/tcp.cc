// SPDX-License-Identifier: Apache-2.0
#include "dns/server/tcp.h"

#include <fmt/format.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "core/clock.h"
#include "core/crypto.h"
#include "core/open_files.h"
#include "dns/listening_socket.h"

namespace tidegate::dns {
namespace {

constexpr int kListenBacklog = 1'024;
constexpr size_t kLengthBytes = 2;  // length before every message
constexpr int kAcceptsPerTurn = 64;
// used when the process has no descriptors left, and no connection of ours can be closed
constexpr uint64_t kPauseMs = 100;
constexpr size_t kKeptBytes = 4'096;  // room for answers that a connection without unsent answers keeps

}  // namespace

class TcpServer::Listener final : public IoHandler {
 public:
  Listener(TcpServer& server, UniqueFd fd)
      : server_(server),
        fd_(std::move(fd)),
        pause_(server.loop_, [this] { server_.loop_.modify(fd_.get(), EPOLLIN); }) {
    server_.loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~Listener() { server_.loop_.remove(fd_.get()); }
  int fd() const { return fd_.get(); }
  void on_io(uint32_t) override {
    if (server_.accept_some(fd_.get()) != Accepted::no_descriptors) return;
    server_.loop_.modify(fd_.get(), 0);  // connections in the backlog would wake us all the time
    pause_.arm_after_ms(kPauseMs);
  }

 private:
  TcpServer& server_;
  UniqueFd fd_;
  Timer pause_;
};

class TcpServer::Connection final : public IoHandler {
 public:
  Connection(TcpServer& server, UniqueFd fd, const IpAddress& address, AddressTable::Hold hold)
      : server_(server), fd_(std::move(fd)), hold_(std::move(hold)), client_{address, QueryTransport::tcp} {
    in_.resize(kLengthBytes + server.limits_.query_bytes);
    server_.loop_.add(fd_.get(), EPOLLIN, this);
  }
  ~Connection() { leave(); }
  // Gives the socket and the place back at once. The object may live until the end of the loop's turn.
  void leave() {
    if (!fd_) return;
    server_.loop_.remove(fd_.get());
    fd_.reset();
    hold_ = {};
  }
  const IpAddress& address() const { return client_.address; }

  void on_io(uint32_t events) override {
    if (closed) return;  // it is being closed already
    const bool alive = (events & (EPOLLERR | EPOLLHUP)) == 0 && send_pending() && (backlogged() || serve());
    if (!alive) return server_.close(*this);
    const uint32_t wanted = backlogged() ? EPOLLOUT : EPOLLIN;
    if (wanted == interest_) return;
    interest_ = wanted;
    server_.loop_.modify(fd_.get(), wanted);
  }

  Connections::iterator place;
  uint64_t active_ns = 0;
  bool closed = false;

 private:
  size_t backlog() const { return out_.size() - out_sent_; }
  bool backlogged() const { return backlog() != 0; }
  bool holds_query() const { return in_bytes_ >= kLengthBytes && in_bytes_ - kLengthBytes >= load_u16(in_.data()); }

  // Answers queries that waited for room, then reads once and answers. Returns false if the connection is over.
  bool serve() {
    if (!answer_buffered()) return false;
    if (backlogged()) return true;
    const ssize_t got = ::recv(fd_.get(), in_.data() + in_bytes_, in_.size() - in_bytes_, MSG_DONTWAIT);
    if (got == 0) return false;
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    in_bytes_ += static_cast<size_t>(got);
    server_.touch(*this);
    return answer_buffered();
  }

  // Answers every whole query in the buffer, as long as the client takes the answers.
  bool answer_buffered() {
    if (in_bytes_ >= kLengthBytes && load_u16(in_.data()) > server_.limits_.query_bytes) return refuse_oversized();
    while (!backlogged() && holds_query()) {
      if (!answer_batch() || !send_pending()) return false;
    }
    return true;
  }

  bool refuse_oversized() {
    Tally::add(server_.tally_.oversized_query);
    return false;
  }

  // Answers whole queries until their answers reach the bound. The rest stays in the buffer.
  bool answer_batch() {
    const PinnedTables tables(server_.slot_);
    if (tables.get() == nullptr) return false;
    server_.worker_.now_s = static_cast<uint32_t>(clock_ns(CLOCK_REALTIME_COARSE) / kNsPerS);
    size_t at = 0;
    while (in_bytes_ - at >= kLengthBytes && backlog() < server_.limits_.backlog_bytes) {
      const size_t bytes = load_u16(&in_[at]);
      if (bytes > server_.limits_.query_bytes) return refuse_oversized();
      if (in_bytes_ - at - kLengthBytes < bytes) break;
      if (!answer_one({&in_[at + kLengthBytes], bytes}, *tables.get())) return false;
      at += kLengthBytes + bytes;
    }
    std::memmove(in_.data(), in_.data() + at, in_bytes_ - at);
    in_bytes_ -= at;
    return true;
  }

  bool answer_one(std::span<const uint8_t> query, const Tables& tables) {
    std::vector<uint8_t>& scratch = server_.scratch_;
    const size_t bytes = answer(query, std::span(scratch).subspan(kLengthBytes), client_, tables, server_.worker_);
    if (bytes == 0) {
      Tally::add(server_.tally_.unanswerable);
      return false;
    }
    store_u16(scratch.data(), static_cast<uint16_t>(bytes));
    out_.insert(out_.end(), scratch.begin(), scratch.begin() + static_cast<ptrdiff_t>(kLengthBytes + bytes));
    return true;
  }

  bool send_pending() {
    while (backlogged()) {
      const ssize_t sent = ::send(fd_.get(), out_.data() + out_sent_, backlog(), MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) return errno == EAGAIN || errno == EINTR;
      out_sent_ += static_cast<size_t>(sent);
      server_.touch(*this);
    }
    if (out_.capacity() > kKeptBytes) std::vector<uint8_t>().swap(out_);
    out_.clear();
    out_sent_ = 0;
    return true;
  }

  TcpServer& server_;
  UniqueFd fd_;
  AddressTable::Hold hold_;
  Client client_;
  std::vector<uint8_t> in_;
  size_t in_bytes_ = 0;
  std::vector<uint8_t> out_;  // answers that the client has not taken yet
  size_t out_sent_ = 0;
  uint32_t interest_ = EPOLLIN;
};

TcpServer::TcpServer(EventLoop& loop, TablesSlot& slot, Worker& worker, TcpLimits limits)
    : loop_(loop),
      slot_(slot),
      worker_(worker),
      limits_(limits),
      addresses_(limits.connections, random_hash_key()),
      scratch_(kLengthBytes + kMaxMessageBytes),
      sweep_(loop, [this] {
        const uint64_t idle_ns = limits_.idle_ms * kNsPerMs;
        while (!connections_.empty() && connections_.front()->active_ns + idle_ns <= loop_.now_ns()) {
          Tally::add(tally_.timed_out);
          close(*connections_.front());
        }
        if (!connections_.empty()) sweep_.arm_at_ns(connections_.front()->active_ns + idle_ns);
      }) {}

TcpServer::~TcpServer() = default;

Result<Endpoint> TcpServer::listen(const Endpoint& endpoint, HeldPorts& held) {
  auto fd = bind_socket(endpoint, SOCK_STREAM, held);
  if (!fd) return fd.error();
  if (::listen(fd->get(), kListenBacklog) != 0) {
    return fail(fmt::format("cannot listen on {}: {}", endpoint.to_string(), std::strerror(errno)));
  }
  const Endpoint bound = local_endpoint(fd->get());
  listeners_.push_back(std::make_unique<Listener>(*this, std::move(*fd)));
  return bound;
}

void TcpServer::stop_listening() { listeners_.clear(); }

std::vector<std::pair<Endpoint, int>> TcpServer::sockets() const {
  std::vector<std::pair<Endpoint, int>> sockets;
  for (const auto& listener : listeners_) sockets.emplace_back(local_endpoint(listener->fd()), listener->fd());
  return sockets;
}

TcpServer::Accepted TcpServer::accept_some(int listener) {
  for (int i = 0; i < kAcceptsPerTurn; ++i) {
    sockaddr_storage peer{};
    socklen_t bytes = sizeof peer;
    UniqueFd fd(::accept4(listener, reinterpret_cast<sockaddr*>(&peer), &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (fd) {
      admit(std::move(fd), Endpoint::from(peer).address.unmapped());
    } else if (is_own_limit(errno)) {
      if (!connection_waits(listener)) return Accepted::all;
      if (!evict_oldest()) return Accepted::no_descriptors;
    } else if (errno != EINTR && errno != ECONNABORTED) {
      return Accepted::all;
    }
  }
  return Accepted::more;
}

void TcpServer::admit(UniqueFd fd, const IpAddress& address) {
  const uint64_t now_ns = loop_.now_ns();
  std::optional<AddressTable::Hold> hold = addresses_.hold(address, limits_.connections_per_address, now_ns);
  // If an address has its share, one of its own connections is closed. So nobody can displace others by connecting
  // again and again.
  if (!hold && evict_oldest_of(address)) hold = addresses_.hold(address, limits_.connections_per_address, now_ns);
  if (connections_.size() >= limits_.connections) evict_oldest();
  if (!hold || (is_reserved_file(fd.get()) && !evict_oldest())) {
    Tally::add(tally_.refused);
    return;
  }
  if (is_reserved_file(fd.get())) fd = under_lowest_number(std::move(fd));
  const int on = 1;
  ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  Tally::add(tally_.accepted);
  connections_.push_back(std::make_unique<Connection>(*this, std::move(fd), address, std::move(*hold)));
  Connection& connection = *connections_.back();
  connection.place = std::prev(connections_.end());
  connection.active_ns = now_ns;
  if (!sweep_.armed()) sweep_.arm_after_ms(limits_.idle_ms);
}

bool TcpServer::evict_oldest() {
  if (connections_.empty()) return false;
  Tally::add(tally_.evicted);
  close(*connections_.front());
  return true;
}

bool TcpServer::evict_oldest_of(const IpAddress& address) {
  const auto oldest = std::find_if(connections_.begin(), connections_.end(), [&](const auto& connection) {
    return AddressTable::same(connection->address(), address);
  });
  if (oldest == connections_.end()) return false;
  Tally::add(tally_.evicted_by_address);
  close(**oldest);
  return true;
}

void TcpServer::touch(Connection& connection) {
  connection.active_ns = loop_.now_ns();
  connections_.splice(connections_.end(), connections_, connection.place);
}

void TcpServer::close(Connection& connection) {
  connection.closed = true;
  connection.leave();
  // The connection is destroyed later, because its own callback may be running.
  auto dying = std::make_shared<std::unique_ptr<Connection>>(std::move(*connection.place));
  connections_.erase(connection.place);
  loop_.defer([dying] { dying->reset(); });
}

}  // namespace tidegate::dns
