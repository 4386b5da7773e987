// SPDX-License-Identifier: Apache-2.0
// XdpServer: one thread that answers on several AF_XDP sockets, which belong to it while it runs. It polls only if none
// of the sockets had a frame.
#pragma once

#include <poll.h>

#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "core/fd.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"
#include "dns/xdp/socket.h"

namespace tidegate::dns {

class XdpServer {
 public:
  XdpServer(TablesPublisher& publisher, const HashKey& cookie_secret);
  ~XdpServer();  // stops
  XdpServer(const XdpServer&) = delete;
  XdpServer& operator=(const XdpServer&) = delete;

  // Call it before start(). The socket must outlive this object.
  void add(XdpSocket& socket) { sockets_.push_back(&socket); }
  void start();
  void stop();  // returns when the thread has ended; queries already received are answered
  const Worker& worker() const { return *worker_; }

 private:
  void run();
  uint32_t serve_all();
  void wait();

  TablesPublisher& publisher_;
  TablesSlot& slot_;
  std::unique_ptr<Worker> worker_;
  std::vector<XdpSocket*> sockets_;
  std::vector<pollfd> waits_;  // for stopping_ and each socket
  UniqueFd stopping_;          // an eventfd that stop() makes readable
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace tidegate::dns
