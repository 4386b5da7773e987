// SPDX-License-Identifier: Apache-2.0
// Proxy: the whole proxy of the process, on the main thread. It makes Plans from Snapshots, gives them to the workers,
// reports about the workers (status, explain, metrics) and drains them.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cache/cache.h"
#include "conf/candidate.h"
#include "conf/model/node.h"
#include "conf/upgrade_hooks.h"
#include "core/event_loop.h"
#include "core/http_server.h"
#include "core/shared_port.h"
#include "l7/observe/access_log.h"
#include "l7/observe/stats.h"
#include "l7/own_certificates.h"
#include "l7/plan.h"
#include "l7/policy/key_fetcher.h"
#include "l7/worker.h"

namespace tidegate::l7 {

class Proxy {
 public:
  // `secret`: the site's secret, from which hash and ticket keys derive. `state_dir`: where the cache is unless
  // configured. `overlaps`: at its start it may share ports with another process of the same user, which ends soon.
  Proxy(EventLoop& main_loop, const std::string& secret, std::string state_dir, Metrics& metrics,
        bool overlaps = false);
  ~Proxy();

  // Call it before the first apply(), with the same arguments. Opens the cache, so that purges can be applied, and
  // returns the last purge that it has durably applied.
  Result<PurgePosition> prepare(const std::shared_ptr<const Snapshot>& snapshot, const Node& node);
  // Compiles and publishes to all workers; the first call starts them. An Error (a certificate that cannot be used, an
  // address that cannot be bound) leaves everything as it was.
  Result<void> apply(std::shared_ptr<const Snapshot> snapshot, const Node& node);
  // Prepares a version: compiles it, makes its TLS contexts, and binds the ports that this process does not have. All
  // of this takes effect only at apply() with the same Model. The proxy holds the candidate only if its vote is yes.
  Vote hold(const std::shared_ptr<const Snapshot>& snapshot, const Node& node);
  // Releases what hold() took and apply() did not use.
  void release();
  // Lets requests in progress finish, for at most the node's drain_timeout, and then calls `done`.
  void drain(std::function<void()> done);

  // For another process that replaces this one (conf/upgrade_hooks.h); in upgrade.cc.
  std::vector<LentSocket> sockets() const;
  void let_go(std::function<void(UniqueFd lock)> done);
  void take_back();
  void leave(std::function<void()> done);
  size_t connections() const;
  // For this process when it replaces another one. Call before the first hold().
  void inherit(const HandOverItem& item, UniqueFd socket);
  void inherit_lock(UniqueFd lock) { cache_lock_ = std::move(lock); }

  void purge(const Purge& purge);
  // The file of the access log was renamed: opens a new file of that name.
  void reopen_log();

  std::string digest() const;
  void add_status(nlohmann::json& status) const;
  std::string warnings() const;  // for /healthz: names what does not work although the proxy serves
  Result<nlohmann::json> explain(const HttpRequest& request) const;
  // The real address of a configured endpoint (port 0 in tests).
  std::optional<Endpoint> bound(const Endpoint& bind) const;

 private:
  struct SocketChanges {
    std::vector<std::vector<ListenSocket>> open;  // by worker
    std::vector<Endpoint> close;
    std::map<Endpoint, Endpoint> bound;  // the whole set after the change
  };
  Result<void> open_cache(const Node& node);
  Result<void> start_workers(const Node& node);
  void adopt_names();
  Result<Description> describe_for(std::shared_ptr<const Snapshot> snapshot, const Node& node);
  void mark_taken_down(const Plan& next);
  Result<SocketChanges> prepare_sockets(const Description& description);
  Result<SocketChanges> open_sockets(const Description& description);
  Vote prepare_candidate(const std::shared_ptr<const Snapshot>& snapshot, const Node& node);  // candidate.cc
  Result<void> hold_ports(const Description& description, size_t workers);
  bool has_port(const Endpoint& bind) const;
  void append_pool_metrics(std::string& out) const;

  EventLoop& main_loop_;
  Metrics& metrics_;
  const std::string state_dir_;
  const bool overlaps_;
  Stats stats_;
  HashKey hash_key_, router_key_;
  std::shared_ptr<const TicketKeys> tickets_;
  RuntimeRegistry registry_;
  policy::Registry policies_;
  OwnCertificates own_certificates_;
  BackendNames names_;
  policy::KeyFetcher keys_;
  std::unique_ptr<cache::Cache> cache_;  // outlives the workers
  std::unique_ptr<AccessLog> log_;
  std::unique_ptr<RequestRecords> records_;  // null: no request is remembered
  std::unique_ptr<WorkerShared> shared_;
  std::vector<std::unique_ptr<Worker>> workers_;
  std::vector<TlsContexts> tls_;                    // by worker; made here, used by the worker
  std::map<Endpoint, Endpoint> bound_;              // configured -> real
  std::map<Endpoint, std::vector<int>> listening_;  // configured -> the workers' sockets; borrowed
  std::shared_ptr<const Plan> plan_;
  std::shared_ptr<const Description> upcoming_;  // of the prepared version, until the first plan is in force
  std::shared_ptr<const Description> held_;      // of a candidate, from hold()
  HeldPorts held_ports_;
  UniqueFd cache_lock_;  // lock of the previous process, until the cache is opened
  Node started_as_;
  std::vector<std::string> needs_restart_;  // keys whose current values take effect only at the next start
};

}  // namespace tidegate::l7
