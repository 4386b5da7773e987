// SPDX-License-Identifier: Apache-2.0
// What an HTTP/2 backend may send: any bytes, after it has accepted a connection. The first byte of the input chooses
// the requests that wait for it (HTTP/1 and HTTP/2 clients, with a body, gRPC, gRPC-Web, buffered, a WebSocket) and how
// its bytes are cut.
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>

#include "conf/model.h"
#include "conf/model/listener.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/route.h"
#include "core/assert.h"
#include "l7/worker.h"

namespace tidegate::l7 {
namespace {

constexpr std::array<std::string_view, 5> kRequests = {
    "GET /x HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
    "PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "POST /web/x HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc-web-text\r\nContent-Length: 8\r\n\r\nAAAAAAA=",
    "HEAD /x HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
};
// Bits of the input's first byte: which of them are asked; if none is set, all.
constexpr std::array<uint8_t, kRequests.size()> kAsks = {1, 2, 4, 8, 32};
constexpr uint8_t kAsksAny = 47, kCuts = 16;

class FuzzedBackend {
 public:
  FuzzedBackend() {
    // An abstract address would be enough, but a pool's socket is a path.
    char folder[] = "/tmp/tidegate-fuzz-XXXXXX";
    TIDEGATE_ASSERT(::mkdtemp(folder) != nullptr, "a folder can be made");
    const std::string path = std::string(folder) + "/backend";
    sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
    std::copy(path.begin(), path.end(), address.sun_path);
    const bool listens = ::bind(listen_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 &&
                         ::listen(listen_.get(), 16) == 0;
    TIDEGATE_ASSERT(listens, "the backend's socket can be made");
    adopt(path);
  }

  void feed(const uint8_t* data, size_t bytes) {
    if (bytes == 0) return;
    const uint8_t choice = data[0];
    ++data;
    --bytes;
    std::array<UniqueFd, kRequests.size()> clients;
    for (size_t i = 0; i < clients.size(); ++i) {
      if ((choice & kAsks[i]) != 0 || (choice & kAsksAny) == 0) clients[i] = ask(kRequests[i]);
    }
    turn(clients);
    UniqueFd backend(::accept4(listen_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    const size_t most = (choice & kCuts) != 0 ? 7 : 65536;
    while (backend && bytes > 0) {
      const ssize_t sent = ::send(backend.get(), data, std::min(bytes, most), MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN) break;
      if (sent > 0) {
        data += sent;
        bytes -= static_cast<size_t>(sent);
      }
      turn(clients);
      if (read_away(backend.get())) break;
    }
    backend.reset();
    turn(clients);
    // A connection of a request that is tried again, or that had no connection before.
    for (UniqueFd more; (more = UniqueFd(::accept4(listen_.get(), nullptr, nullptr, SOCK_CLOEXEC)));) continue;
    for (UniqueFd& client : clients) client.reset();
    for (int i = 0; i < 4; ++i) worker_.loop().run_once(0);
    TIDEGATE_ASSERT(worker_.memory().taken() == 0, "windows and buffers give back what they took");
  }

 private:
  void adopt(const std::string& path) {
    auto model = std::make_shared<Model>();
    Node node;
    node.name = "fuzz";
    model->nodes.push_back(node);
    Listener listener;
    listener.name = "plain";
    listener.bind = {bind_};
    model->listeners.push_back(listener);
    Pool pool;
    pool.name = "p";
    pool.protocol = BackendProtocol::h2;
    pool.eject_after = 0;
    pool.retry_budget = 0;
    pool.buffer_request_bytes = pool.buffer_response_bytes = 1000;
    Backend backend;
    backend.name = "b";
    backend.socket = path;
    pool.backends.push_back(backend);
    model->pools.push_back(pool);
    Route route;
    route.name = "all";
    route.path = "/*";
    route.what = RouteToPool{0};
    model->routes.push_back(route);
    route.name = "web";
    route.path = "/web/*";
    route.grpc_web = true;
    model->routes.push_back(route);
    const auto snapshot = make_snapshot(1, "fuzz", model, std::make_shared<LiveState>());
    const auto plan = attach(*describe({snapshot, 0, {1, 2}, {3, 4}}, nullptr), nullptr, registry_, policies_);
    auto adoption = std::make_shared<Adoption>();
    adoption->plan = std::make_unique<LocalPlan>(plan, *TlsContexts(nullptr).prepare(*plan));
    worker_.adopt(adoption);
    worker_.loop().run_once(0);
  }

  UniqueFd ask(std::string_view request) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) return {};
    UniqueFd client(ends[0]);
    worker_.accept(UniqueFd(ends[1]), *Endpoint::parse("192.0.2.1:1"), bind_);
    if (::send(client.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) return {};
    return client;
  }

  template <class Clients>
  void turn(Clients& clients) {
    for (int i = 0; i < 4; ++i) worker_.loop().run_once(0);
    for (const UniqueFd& client : clients) {
      if (client) read_away(client.get());
    }
  }

  // Returns true at the end of the connection.
  static bool read_away(int fd) {
    char bytes[16384];
    ssize_t got;
    while ((got = ::recv(fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) continue;
    return got == 0 || errno != EAGAIN;
  }

  const Endpoint bind_ = *Endpoint::parse("192.0.2.2:80");
  const UniqueFd listen_{::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)};
  Metrics metrics_;
  Stats stats_{metrics_};
  std::unique_ptr<AccessLog> log_ = std::move(*AccessLog::open({}, 1, stats_.log_lines_dropped));
  EventLoop main_loop_;
  WorkerShared shared_{stats_, *log_, nullptr, main_loop_, AdmissionShared(HashKey{1, 2})};
  RuntimeRegistry registry_;
  policy::Registry policies_;
  Worker worker_{0, shared_};
};

}  // namespace
}  // namespace tidegate::l7

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t bytes) {
  static auto* const backend = new tidegate::l7::FuzzedBackend;
  backend->feed(data, bytes);
  return 0;
}
