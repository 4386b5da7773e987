// SPDX-License-Identifier: Apache-2.0
// StreamWorker: one thread with an event loop for all connections: DNS over TCP, and HTTPDNS and DoH over plain HTTP/1
// (behind our L7). Each worker has one. Its listeners share SO_REUSEPORT groups with the listeners of the other
// workers.
#pragma once

#include <atomic>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "conf/model/node.h"
#include "core/event_loop.h"
#include "core/http_server.h"
#include "core/result.h"
#include "core/shared_port.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"
#include "dns/server/http_front.h"
#include "dns/server/tcp.h"

namespace tidegate::dns {

class StreamWorker {
 public:
  // `node` is copied. The other arguments are borrowed. `clients` is for HttpFront. Takes `held` sockets for its ports.
  // Binds at once, serves from start() on.
  static Result<std::unique_ptr<StreamWorker>> open(const DnsNode& node, const std::vector<Endpoint>& tcp,
                                                    const std::vector<Endpoint>& http, TablesPublisher& publisher,
                                                    const HashKey& cookie_secret, AddressTable& clients,
                                                    HeldPorts& held);
  ~StreamWorker();  // stops
  StreamWorker(const StreamWorker&) = delete;
  StreamWorker& operator=(const StreamWorker&) = delete;

  // Adds one more held socket. Call it before start().
  Result<void> add_tcp(const Endpoint& endpoint, HeldPorts& held);
  Result<void> add_http(const Endpoint& endpoint, HeldPorts& held);

  void start();
  void stop();
  // Another process accepts from now on. Connections end with their answer (HTTP) or when they are idle.
  void leave();
  // Number of connections after leave(), at most kLeaveLookMs old.
  size_t connections_left() const { return left_.load(std::memory_order_relaxed); }
  std::vector<std::pair<Endpoint, int>> sockets() const;  // sockets that listen; borrowed

  const std::vector<Endpoint>& tcp_endpoints() const { return tcp_endpoints_; }
  const std::vector<Endpoint>& http_endpoints() const { return http_endpoints_; }
  const Worker& worker() const { return *worker_; }
  const TcpTally& tcp_tally() const { return tcp_->tally(); }
  const HttpTally& http_tally() const { return front_->tally(); }

 private:
  StreamWorker(const DnsNode& node, TablesPublisher& publisher, const HashKey& cookie_secret, AddressTable& clients);

  TablesPublisher& publisher_;
  TablesSlot& slot_;
  std::unique_ptr<Worker> worker_;
  EventLoop loop_;
  std::unique_ptr<TcpServer> tcp_;
  std::unique_ptr<HttpFront> front_;
  std::unique_ptr<HttpServer> http_;
  std::vector<Endpoint> tcp_endpoints_, http_endpoints_;
  std::atomic<size_t> left_{0};
  Timer look_;  // runs after leave()
  std::thread thread_;
};

}  // namespace tidegate::dns
