// SPDX-License-Identifier: Apache-2.0
// What a Plane holds: plane.cc starts and ends it, plane_admin.cc answers for it.
#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "conf/plane.h"
#include "conf/socket_store.h"
#include "conf/upgrade.h"
#include "core/clock.h"
#include "core/service_manager.h"

namespace tidegate {

struct Plane::Impl final : IoHandler {
  Impl(std::string plane_name, PlaneOptions plane_options)
      : name(std::move(plane_name)), options(std::move(plane_options)) {
    start_error = prepare();
  }

  std::string name;
  PlaneOptions options;
  EventLoop loop;
  ServiceManager manager{loop};
  Upgrade upgrade{loop, manager, name};
  SocketStore store{manager};
  bool stores = false;  // the manager gets messages from this process
  std::string secret;
  Result<void> start_error;  // an error in the constructor, returned by run()

  PlaneHooks hooks;
  UniqueFd signals;
  std::unique_ptr<Predecessor> predecessor;  // until this process serves
  bool warmed = false;                       // the predecessor has released what only one process can have
  UniqueFd metrics_socket;                   // of the predecessor
  std::unique_ptr<HttpServer> admin_server, metrics_server;
  std::unique_ptr<Follower> follower;
  std::string node_name;
  const uint64_t started_ns = monotonic_ns();
  bool ready = false;
  bool draining = false;
  bool in_loop = false;
  std::string start_refusal;     // why the last version was not applied while none was in force
  size_t unprobed_backends = 0;  // their pool has a probe, but nobody probes

  Result<void> prepare();
  int run();
  Result<void> listen();
  Result<void> listen_metrics();
  Result<void> follow();
  Result<void> take_over();
  Result<void> warm_up(const std::shared_ptr<const Snapshot>& snapshot, const Node& node);
  Result<void> serve_on();
  void take_kept_sockets();
  void keep_sockets();
  void leave();
  Result<void> apply(const std::shared_ptr<const Snapshot>& snapshot);
  Result<void> may_still_start() const;
  int exit_status(const Error& why) const;
  void refused_at_start(const Error& why);

  void on_io(uint32_t events) override;
  void reload();
  void on_stop_signal();

  void answer_admin(const HttpExchangePtr& exchange);
  bool answer_common(const HttpExchangePtr& exchange) const;  // the paths that TCP shows too: /healthz and /metrics
  HttpResponse health() const;
  std::string metrics_text() const;
  nlohmann::json alive() const;
  nlohmann::json status() const;
  HttpResponse explain(const HttpRequest& request) const;
  HttpResponse candidate(const HttpRequest& request);
};

}  // namespace tidegate
