// SPDX-License-Identifier: Apache-2.0
#include "dns/server/stream_worker.h"

#include <sys/socket.h>

#include "core/clock.h"
#include "core/thread.h"
#include "dns/listening_socket.h"

namespace tidegate::dns {
namespace {

constexpr uint64_t kLeaveLookMs = 100;

}  // namespace

StreamWorker::StreamWorker(const DnsNode& node, TablesPublisher& publisher, const HashKey& cookie_secret,
                           AddressTable& clients)
    : publisher_(publisher),
      slot_(publisher.add_reader()),
      worker_(std::make_unique<Worker>(cookie_secret)),
      tcp_(std::make_unique<TcpServer>(loop_, slot_, *worker_)),
      front_(std::make_unique<HttpFront>(node.trusted_proxies, slot_, *worker_, clients)),
      look_(loop_, [this] {
        left_.store(tcp_->connections() + http_->connections(), std::memory_order_relaxed);
        look_.arm_after_ms(kLeaveLookMs);
      }) {
  HttpServerLimits limits;
  limits.body_bytes = kMaxMessageBytes;  // for a DoH message; HTTPDNS has no bodies
  limits.head.head_bytes = 16 << 10;
  limits.trusted_addresses = node.trusted_proxies;  // their connections carry the queries of many clients
  http_ = std::make_unique<HttpServer>(
      loop_, [this](HttpExchangePtr exchange) { front_->serve(exchange); }, limits);
}

Result<std::unique_ptr<StreamWorker>> StreamWorker::open(const DnsNode& node, const std::vector<Endpoint>& tcp,
                                                         const std::vector<Endpoint>& http, TablesPublisher& publisher,
                                                         const HashKey& cookie_secret, AddressTable& clients,
                                                         HeldPorts& held) {
  std::unique_ptr<StreamWorker> worker(new StreamWorker(node, publisher, cookie_secret, clients));
  for (const Endpoint& endpoint : tcp) {
    auto bound = worker->tcp_->listen(endpoint, held);
    if (!bound) return bound.error();
    worker->tcp_endpoints_.push_back(*bound);
  }
  for (const Endpoint& endpoint : http) {
    auto socket = bind_socket(endpoint, SOCK_STREAM, held);
    if (!socket) return socket.error();
    if (auto bound = worker->http_->listen_on(*std::move(socket)); !bound) return bound.error();
    worker->http_endpoints_.push_back(worker->http_->tcp_endpoint());
  }
  return worker;
}

Result<void> StreamWorker::add_tcp(const Endpoint& endpoint, HeldPorts& held) {
  const Result<Endpoint> bound = tcp_->listen(endpoint, held);
  return bound ? Result<void>() : bound.error();
}

Result<void> StreamWorker::add_http(const Endpoint& endpoint, HeldPorts& held) {
  auto socket = bind_socket(endpoint, SOCK_STREAM, held);
  return socket ? http_->listen_on(*std::move(socket)) : socket.error();
}

void StreamWorker::leave() {
  left_.store(1, std::memory_order_relaxed);  // assumed until the first look
  loop_.post([this] {
    tcp_->stop_listening();
    http_->stop_listening();
    http_->wind_down();
    look_.arm_after_ns(0);
  });
}

std::vector<std::pair<Endpoint, int>> StreamWorker::sockets() const {
  std::vector<std::pair<Endpoint, int>> sockets = tcp_->sockets();
  for (const int fd : http_->tcp_sockets()) sockets.emplace_back(local_endpoint(fd), fd);
  return sockets;
}

StreamWorker::~StreamWorker() {
  stop();
  http_.reset();
  tcp_.reset();
  publisher_.remove_reader(slot_);
}

void StreamWorker::start() {
  thread_ = start_thread("dns-stream", [this] { loop_.run(); });
}

void StreamWorker::stop() {
  if (!thread_.joinable()) return;
  // stop() is posted: if it were called directly, a loop that does not run yet would forget it.
  loop_.post([this] { loop_.stop(); });
  thread_.join();
}

}  // namespace tidegate::dns
