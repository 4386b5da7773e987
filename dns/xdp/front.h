// SPDX-License-Identifier: Apache-2.0
// XdpFront: the interfaces that the node has queries come from by AF_XDP, each with its threads. Whatever one of them
// lacks, its queries come through the kernel to the ordinary sockets meanwhile: nothing here is an Error. Main thread.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "conf/model.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"
#include "dns/xdp/interface.h"
#include "dns/xdp/server.h"

namespace tidegate::dns {

// Of one interface, for people.
struct XdpState {
  std::string interface;
  std::string refused;  // why it is not open; empty: it is
  const char* mode = "";
  size_t queues = 0;
  bool zero_copy = false;
};

class XdpFront {
 public:
  // Opens what can be opened of node.xdp. `listen`: what UDP is bound to.
  XdpFront(const DnsNode& node, std::vector<Endpoint> listen, TablesPublisher& publisher, const HashKey& cookie_secret);
  ~XdpFront();  // stops

  // Opens what is not open, and anew what is no longer what was opened; `leave` gets each worker that ends with it.
  // Called now and then.
  void tend(const std::function<void(const Worker&)>& leave);
  // The kernel has the queries again, and what had been received is answered.
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
