// SPDX-License-Identifier: Apache-2.0
// XdpFront: the interfaces from which the node gets queries by AF_XDP, each with its threads. If an interface cannot be
// opened, its queries come through the kernel to the ordinary sockets, so nothing here is an Error. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/model/node.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"
#include "dns/xdp/interface.h"
#include "dns/xdp/server.h"

namespace tidegate::dns {

// The state of one interface, for people.
struct XdpState {
  std::string interface;
  std::string refused;  // why it is not open; empty: it is open
  const char* mode = "";
  size_t queues = 0;
  bool zero_copy = false;
};

class XdpFront {
 public:
  // Opens the interfaces of node.xdp. An interface that cannot be opened is left out; tend() tries it again. `listen`:
  // the endpoints to which UDP is bound.
  XdpFront(const DnsNode& node, std::vector<Endpoint> listen, TablesPublisher& publisher, const HashKey& cookie_secret);
  ~XdpFront();  // stops

  // Opens interfaces that are not open, and reopens those that have changed. `leave` gets each worker that ends because
  // of this. Called from time to time.
  void tend(const std::function<void(const Worker&)>& leave);
  // The kernel gets the queries again. Queries that were already received are answered.
  void stop();

  std::vector<XdpState> states() const;
  void append_metrics(std::string& out) const;
  void for_each_worker(const std::function<void(const Worker&)>& fn) const;

 private:
  struct Door {
    std::string name;
    std::string refused;
    std::unique_ptr<XdpInterface> interface;  // null while refused
    std::vector<std::unique_ptr<XdpServer>> servers;
  };
  void open(Door& door);
  static void close(Door& door);

  std::vector<Endpoint> listen_;
  uint32_t workers_;
  TablesPublisher& publisher_;
  HashKey cookie_secret_;
  std::vector<Door> doors_;
};

}  // namespace tidegate::dns
