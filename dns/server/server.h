// SPDX-License-Identifier: Apache-2.0
// Server: the plane's listeners and workers, and the Tables from which they answer. There is one in the process, on the
// main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conf/candidate.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/snapshot.h"
#include "conf/upgrade_hooks.h"
#include "core/address_table.h"
#include "core/hash.h"
#include "core/result.h"
#include "core/shared_port.h"
#include "dns/query/publish.h"
#include "dns/query/query.h"
#include "dns/query/tables.h"
#include "dns/server/stream_worker.h"
#include "dns/server/udp.h"
#include "dns/xdp/front.h"

namespace tidegate::dns {

class Server {
 public:
  // `cookie_secret` is for server cookies, which are equal on every host with the same secret. `overlaps`: at its start
  // it may share ports with another process of the same user, which ends soon.
  explicit Server(const HashKey& cookie_secret, bool overlaps = false);
  ~Server();

  // The faults of a Model's zones and steers. If there are none, the next apply() of this Model uses what was built
  // here.
  std::vector<Fault> judge(const std::shared_ptr<const Model>& model);
  // Builds the Tables, opens listeners that are new on the node, publishes, and closes listeners that are gone. Because
  // of this order, an Error (zone, steer, geo database, address in use) changes nothing.
  Result<void> apply(std::shared_ptr<const Snapshot> snapshot, const Node& node);
  // Prepares a version: builds its Tables, and binds the ports that this process does not have. All of this takes
  // effect only at apply() of the same Model. The server holds the candidate only if its vote is yes.
  Vote hold(std::shared_ptr<const Snapshot> snapshot, const Node& node);
  // Releases what hold() took and apply() did not use.
  void release();
  // Publishes the present addresses of the steers' aliases.
  void set_aliases(const AliasBook& aliases);
  // Releases old Tables that no worker holds any more. Returns true if none is left. Called from time to time.
  bool collect() { return publisher_.collect(); }
  // Opens AF_XDP interfaces that are not open. Returns true if the node has any; then call it again from time to time.
  bool tend_xdp();
  // Ends every thread. Queries that were already received are answered.
  void stop();

  // For another process that replaces this one (conf/upgrade_hooks.h); in upgrade.cc.
  std::vector<LentSocket> sockets() const;
  // After this call, queries of AF_XDP interfaces go to the kernel's sockets.
  void let_go();
  void take_back();
  // Receives nothing more. Existing connections are still served; connections_left() says how many there are.
  void leave();
  size_t connections_left() const;
  // For this process when it replaces another one. Call before the first hold().
  void inherit(const HandOverItem& item, UniqueFd socket);

  const Tables* tables() const { return publisher_.in_force(); }
  // A worker for the main thread, for explain: it uses the same functions, and its own counters, which are not
  // exported.
  Worker& own_worker() { return own_worker_; }
  // Bound endpoints, in the node's order (tests bind port 0).
  std::vector<Endpoint> udp_endpoints() const;
  std::vector<Endpoint> tcp_endpoints() const;
  std::vector<Endpoint> http_endpoints() const;
  std::vector<XdpState> xdp_states() const;
  // Prometheus text of all counters of the workers.
  void append_metrics(std::string& out) const;
  uint64_t queries() const;
  size_t workers() const { return listeners_ ? listeners_->streams.size() : 0; }

 private:
  // A UDP thread and its data.
  struct UdpWorker {
    UdpWorker(TablesPublisher& publisher, const HashKey& cookie_secret);
    ~UdpWorker();
    TablesPublisher& publisher;
    TablesSlot& slot;
    std::unique_ptr<Worker> worker;
    std::unique_ptr<UdpServer> udp;
  };
  // The open listeners of a node. They are kept while the node's part of the model stays the same.
  struct Listeners {
    DnsNode node;
    std::vector<std::unique_ptr<UdpWorker>> udp;
    std::vector<std::unique_ptr<StreamWorker>> streams;
    std::unique_ptr<XdpFront> xdp;  // null if the node has none
  };

  Result<std::unique_ptr<Listeners>> open(const DnsNode& node);
  Result<void> add_udp(const Endpoint& endpoint, Listeners& listeners);
  Result<void> open_inherited(Listeners& listeners);
  Result<void> hold_ports(const DnsNode& node);
  Result<void> hold_port(const Endpoint& endpoint, int type, const DnsNode& node);
  void retire_xdp();
  bool has_port(const Endpoint& endpoint) const;
  template <class Fn>
  void for_each_worker(Fn&& fn) const;  // calls fn(const Worker&)
  void append_transport_metrics(std::string& out) const;

  HashKey cookie_secret_;
  const bool overlaps_;
  TablesPublisher publisher_;
  Worker own_worker_;
  AddressTable httpdns_clients_;              // the clients' quotas, which survive changes of listeners
  std::shared_ptr<const Authority> planned_;  // set by judge(), until apply()
  std::shared_ptr<const Tables> held_;        // set by hold(), until apply() or release()
  HeldPorts held_ports_;
  std::unique_ptr<Listeners> listeners_;
  bool xdp_let_go_ = false;  // another process must get the interfaces
  Tally retired_;            // counters of workers that are gone, because counters must never decrease
};

}  // namespace tidegate::dns
