// SPDX-License-Identifier: Apache-2.0
// Server: the plane's listeners and workers, and the Tables they answer from. One for the process, on the main thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "conf/candidate.h"
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
  // `cookie_secret` makes server cookies, alike on every host that shares it. `overlaps`: at its start it may share
  // ports with another process of the same user, which ends soon.
  explicit Server(const HashKey& cookie_secret, bool overlaps = false);
  ~Server();

  // What a Model's zones and steers have wrong. If that is nothing, the next apply() of this Model uses what was built.
  std::vector<Fault> judge(const std::shared_ptr<const Model>& model);
  // Builds the Tables, opens what listeners the node gained, publishes, closes those it lost: in this order, so that an
  // Error (zone, steer, geo database, address in use) leaves everything as it was.
  Result<void> apply(std::shared_ptr<const Snapshot> snapshot, const Node& node);
  // Prepares a version: builds its Tables, and binds the ports that this process does not have. Nothing of it is in
  // effect before the apply() of the same Model. A vote other than yes holds nothing.
  Vote hold(std::shared_ptr<const Snapshot> snapshot, const Node& node);
  // Lets go of what hold() took and apply() did not use.
  void release();
  // Publishes what is known of the steers' aliases now.
  void set_aliases(const AliasBook& aliases);
  // Lets go of old Tables that no worker holds any more; true when none is left. Called now and then.
  bool collect() { return publisher_.collect(); }
  // Opens what interfaces of AF_XDP are not open, if the node has any: true then, and it is to be called now and then.
  bool tend_xdp();
  // Every thread ends; what had been received is answered.
  void stop();

  // Another process follows this one (conf/upgrade_hooks.h); upgrade.cc.
  std::vector<LentSocket> sockets() const;
  // Queries of AF_XDP interfaces come to the kernel's sockets from then on.
  void let_go();
  void take_back();
  // Receives nothing more. Connections are served on; connections_left() says how many there are.
  void leave();
  size_t connections_left() const;
  // This process follows another one; before the first hold().
  void inherit(const HandOverItem& item, UniqueFd socket);

  const Tables* tables() const { return publisher_.in_force(); }
  // A worker of the main thread, for explain: the same functions, its own counters, which nobody exports.
  Worker& own_worker() { return own_worker_; }
  // Bound endpoints, in the node's order (tests bind port 0).
  std::vector<Endpoint> udp_endpoints() const;
  std::vector<Endpoint> tcp_endpoints() const;
  std::vector<Endpoint> http_endpoints() const;
  std::vector<XdpState> xdp_states() const;
  // Prometheus text of all that the workers counted.
  void append_metrics(std::string& out) const;
  uint64_t queries() const;

 private:
  // A UDP thread with what belongs to it.
  struct UdpWorker {
    UdpWorker(TablesPublisher& publisher, const HashKey& cookie_secret);
    ~UdpWorker();
    TablesPublisher& publisher;
    TablesSlot& slot;
    std::unique_ptr<Worker> worker;
    std::unique_ptr<UdpServer> udp;
  };
  // The listeners of a node, as opened: kept while the node's part of the model stays as it is.
  struct Listeners {
    DnsNode node;
    std::vector<std::unique_ptr<UdpWorker>> udp;
    std::vector<std::unique_ptr<StreamWorker>> streams;
    std::unique_ptr<XdpFront> xdp;  // null where the node has none
  };

  Result<std::unique_ptr<Listeners>> open(const DnsNode& node);
  Result<void> add_udp(const Endpoint& endpoint, Listeners& listeners);
  Result<void> open_inherited(Listeners& listeners);
  Result<void> hold_ports(const DnsNode& node);
  Result<void> hold_port(const Endpoint& endpoint, int type, const DnsNode& node);
  void retire_xdp();
  bool has_port(const Endpoint& endpoint) const;
  template <class Fn>
  void for_each_worker(Fn&& fn) const;  // fn(const Worker&)
  void append_transport_metrics(std::string& out) const;

  HashKey cookie_secret_;
  const bool overlaps_;
  TablesPublisher publisher_;
  Worker own_worker_;
  AddressTable httpdns_clients_;              // their quotas outlive every change of listeners
  std::shared_ptr<const Authority> planned_;  // by judge(), until apply()
  std::shared_ptr<const Tables> held_;        // by hold(), until apply() or release()
  HeldPorts held_ports_;
  std::unique_ptr<Listeners> listeners_;
  bool xdp_let_go_ = false;  // another process is to have the interfaces
  Tally retired_;            // what workers that are gone had counted: counters never go back
};

}  // namespace tidegate::dns
