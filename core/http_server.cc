// SPDX-License-Identifier: Apache-2.0
#include "core/http_server.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "core/http_connection.h"
#include "core/open_files.h"
#include "core/vanished.h"

namespace tidegate {
namespace {

constexpr int kBacklog = 1024;
constexpr int kAcceptsPerWake = 64;
constexpr uint64_t kPauseMs = 100;  // pause after the process ran out of descriptors

Error errno_error(const std::string& what) { return fail(what + ": " + std::strerror(errno)); }

Result<void> to_unix_address(const std::string& path, sockaddr_un& address) {
  address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail("listen on " + path + ": a socket path has 1 to " + std::to_string(sizeof address.sun_path - 1) +
                " bytes");
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return {};
}

// A path with a socket file can be used again if nobody listens on it any more.
Result<void> remove_stale_socket(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return errno_error("listen on " + path);
  }
  if (!S_ISSOCK(status.st_mode)) return fail("listen on " + path + ": a file that is not a socket is in the way");
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!probe) return errno_error("listen on " + path);
  const int rc = ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  if (rc == 0 || errno == EAGAIN) return fail("listen on " + path + ": a living process listens there");
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return errno_error("remove stale " + path);
  return {};
}

// Answers a connection that is closed next. One send into an empty socket buffer never blocks. The client's bytes are
// read first; otherwise the close would reset the connection and lose the answer.
void turn_away(int fd) {
  const HttpResponse problem =
      HttpResponse::problem(503, http1::reason_phrase(503), "the server has as many connections as it may");
  std::string out = "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n";
  out += "Connection: close\r\nContent-Length: " + std::to_string(problem.body.size()) + "\r\n\r\n" + problem.body;
  [[maybe_unused]] const ssize_t sent = ::send(fd, out.data(), out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  char scratch[4096];
  while (::recv(fd, scratch, sizeof scratch, MSG_DONTWAIT) > 0) {
  }
}

class Listener final : public IoHandler {
 public:
  Listener(std::shared_ptr<HttpServerState> state, UniqueFd fd, std::string unix_path, std::shared_ptr<TlsContext> tls)
      : state_(std::move(state)),
        fd_(std::move(fd)),
        unix_path_(std::move(unix_path)),
        tls_(std::move(tls)),
        pause_(state_->loop, [this] { watch(); }) {
    struct stat status {};
    if (!unix_path_.empty() && ::stat(unix_path_.c_str(), &status) == 0) inode_ = status.st_ino;
    watch();
  }
  ~Listener() {
    state_->loop.remove(fd_.get());
    // Remove only our own file: a successor may have put its socket there.
    struct stat status {};
    if (!unix_path_.empty() && ::stat(unix_path_.c_str(), &status) == 0 && status.st_ino == inode_) {
      ::unlink(unix_path_.c_str());
    }
  }
  void replace_tls(const std::shared_ptr<TlsContext>& context) {
    if (tls_) tls_ = context;
  }
  bool is_unix() const { return !unix_path_.empty(); }
  int fd() const { return fd_.get(); }

  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

 private:
  void watch() {
    if (!state_->loop.add(fd_.get(), EPOLLIN, this)) pause_.arm_after_ms(kPauseMs);
  }

  void on_io(uint32_t) override {
    for (int i = 0; i < kAcceptsPerWake; ++i) {
      sockaddr_storage from{};
      socklen_t length = sizeof from;
      UniqueFd fd(::accept4(fd_.get(), reinterpret_cast<sockaddr*>(&from), &length, SOCK_NONBLOCK | SOCK_CLOEXEC));
      if (fd) {
        admit(std::move(fd), from);
      } else if (is_own_limit(errno)) {
        if (!connection_waits(fd_.get())) return;
        // The connection that is idle longest is closed for the new one.
        if (state_->tcp_door.recycle_one() || state_->local_door.recycle_one()) continue;
        state_->loop.remove(fd_.get());  // otherwise epoll would report it again and again
        return pause_.arm_after_ms(kPauseMs);
      } else if (errno != ECONNABORTED && errno != EINTR) {
        return;
      }
    }
  }

  void admit(UniqueFd fd, const sockaddr_storage& from) {
    std::optional<Endpoint> peer;
    ucred credentials{};
    socklen_t length = sizeof credentials;
    HttpDoor::Newcomer newcomer{fd.get(), {}, 0};
    if (unix_path_.empty()) {
      peer = Endpoint::from(from);
      newcomer.address = peer->address;
      const int on = 1;
      ::setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    } else if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &length) != 0) {
      return;
    }
    newcomer.uid = credentials.uid;
    HttpDoor& door = unix_path_.empty() ? state_->tcp_door : state_->local_door;
    HttpDoor::Place place;
    const HttpDoor::Refusal refusal = door.enter(newcomer, state_->loop.now_ns(), place);
    if (refusal != HttpDoor::Refusal::none) {
      state_->refused_at_door[static_cast<size_t>(refusal)]->add();
      if (!tls_) turn_away(fd.get());
      return;
    }
    if (is_reserved_file(fd.get()) && unix_path_.empty()) fd = under_lowest_number(std::move(fd));
    std::unique_ptr<TlsStream> stream = tls_ ? std::make_unique<TlsStream>(tls_, fd.get(), true) : nullptr;
    Transport transport(std::move(fd), std::move(stream));
    auto connection =
        std::make_shared<HttpConnection>(state_, door, std::move(place), std::move(transport), peer, credentials.uid);
    state_->connections.emplace(connection.get(), connection);
    connection->start();
  }

  const std::shared_ptr<HttpServerState> state_;
  const UniqueFd fd_;
  const std::string unix_path_;
  std::shared_ptr<TlsContext> tls_;  // null: plain
  ino_t inode_ = 0;
  Timer pause_;
};

}  // namespace

struct HttpServer::Impl {
  std::shared_ptr<HttpServerState> state;
  std::vector<std::unique_ptr<Listener>> listeners;
  Endpoint tcp_endpoint;
};

HttpServer::HttpServer(EventLoop& loop, HttpHandler handler, HttpServerLimits limits)
    : impl_(std::make_unique<Impl>()) {
  impl_->state = std::make_shared<HttpServerState>(loop, std::move(handler), limits);
}

HttpServer::~HttpServer() {
  impl_->listeners.clear();
  auto& connections = impl_->state->connections;
  while (!connections.empty()) {
    const auto connection = connections.begin()->second;
    connection->close();  // removes it from the map
  }
}

Result<void> HttpServer::listen_unix(const std::string& path, unsigned mode) {
  sockaddr_un address{};
  if (Result<void> fits = to_unix_address(path, address); !fits) return fits;
  if (Result<void> removed = remove_stale_socket(path, address); !removed) return removed;
  return bind_unix(path, path, mode);
}

// The new socket is bound beside the old one first, and then renamed over it. So a client always finds a listener.
Result<void> HttpServer::take_unix(const std::string& path, unsigned mode) {
  const std::string beside = path + ".new";
  if (::unlink(beside.c_str()) != 0 && errno != ENOENT) return errno_error("remove stale " + beside);
  return bind_unix(beside, path, mode);
}

Result<void> HttpServer::bind_unix(const std::string& at, const std::string& path, unsigned mode) {
  sockaddr_un address{};
  if (Result<void> fits = to_unix_address(at, address); !fits) return fits;
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  // The mode is set on the socket before bind(2), so that the file never appears with wider permissions.
  if (!fd || ::fchmod(fd.get(), mode) != 0 ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::chmod(at.c_str(), mode) != 0 || ::listen(fd.get(), kBacklog) != 0 ||
      (at != path && ::rename(at.c_str(), path.c_str()) != 0)) {
    return errno_error("listen on " + path);
  }
  impl_->listeners.push_back(std::make_unique<Listener>(impl_->state, std::move(fd), path, nullptr));
  return {};
}

Result<void> HttpServer::listen_tcp(const Endpoint& endpoint) { return listen_inet(endpoint, nullptr); }

Result<void> HttpServer::listen_on(UniqueFd bound) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(bound.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0)
    return errno_error("getsockname");
  return listen_bound(std::move(bound), Endpoint::from(address), nullptr);
}

Result<void> HttpServer::listen_tls(const Endpoint& endpoint, std::shared_ptr<TlsContext> context) {
  return listen_inet(endpoint, std::move(context));
}

Result<void> HttpServer::listen_inet(const Endpoint& endpoint, std::shared_ptr<TlsContext> tls) {
  sockaddr_storage address{};
  socklen_t length = endpoint.to_sockaddr(address);
  UniqueFd fd(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  const auto set = [&](int level, int option) { return ::setsockopt(fd.get(), level, option, &on, sizeof on) == 0; };
  // [::]:80 and 0.0.0.0:80 are two listeners here, so no client appears as ::ffff:a.b.c.d.
  if (!fd || !set(SOL_SOCKET, SO_REUSEADDR) || (endpoint.address.is_v6() && !set(IPPROTO_IPV6, IPV6_V6ONLY)) ||
      ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    return errno_error("listen on " + endpoint.to_string());
  }
  return listen_bound(std::move(fd), endpoint, std::move(tls));
}

Result<void> HttpServer::listen_bound(UniqueFd fd, const Endpoint& endpoint, std::shared_ptr<TlsContext> tls) {
  end_when_peer_vanishes(fd.get(), impl_->state->limits.idle_ms);  // inherited by every accepted socket
  if (::listen(fd.get(), kBacklog) != 0) return errno_error("listen on " + endpoint.to_string());
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) {
    return errno_error("listen on " + endpoint.to_string());
  }
  impl_->tcp_endpoint = Endpoint::from(address);
  impl_->listeners.push_back(std::make_unique<Listener>(impl_->state, std::move(fd), std::string{}, std::move(tls)));
  return {};
}

void HttpServer::replace_tls(const std::shared_ptr<TlsContext>& context) {
  for (const std::unique_ptr<Listener>& listener : impl_->listeners) listener->replace_tls(context);
}

Endpoint HttpServer::tcp_endpoint() const { return impl_->tcp_endpoint; }

std::vector<int> HttpServer::tcp_sockets() const {
  std::vector<int> sockets;
  for (const std::unique_ptr<Listener>& listener : impl_->listeners) {
    if (!listener->is_unix()) sockets.push_back(listener->fd());
  }
  return sockets;
}

size_t HttpServer::connections() const { return impl_->state->connections.size(); }

void HttpServer::wind_down() { impl_->state->winding_down = true; }

void HttpServer::stop_listening() { impl_->listeners.clear(); }

}  // namespace tidegate
