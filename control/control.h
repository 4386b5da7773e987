// SPDX-License-Identifier: Apache-2.0
// Control: the whole control plane on one event loop: host state, API, and probes or replication. main() runs it. Tests
// make several in one process.
#pragma once

#include <memory>
#include <string>

#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/options.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate {

class Control {
 public:
  // Opens the state, commits options.config if there is no version yet, and listens. Errors are sentences for the
  // operator.
  static Result<std::unique_ptr<Control>> start(EventLoop& loop, const ControlOptions& options);
  ~Control();

  // Reads tokens and certificates again, for the listener and for other controls (SIGHUP). After an Error the old ones
  // stay in use.
  Result<void> reload();
  // Stops listening. Open streams end with the Control.
  void stop_listening();
  // With etcd, lets another control lead at once. `done` is called within a second, or at once if there is nothing to
  // do.
  void hand_over(std::function<void()> done);

  HostState& host_state();
  const RouteTable& routes() const;
  std::optional<Endpoint> tcp_endpoint() const;  // the bound endpoint

 private:
  Control();
  struct Parts;
  std::shared_ptr<Parts> parts_;  // the gauges have weak pointers to it
};

}  // namespace tidegate
