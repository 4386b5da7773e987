// SPDX-License-Identifier: Apache-2.0
// Control: the control plane put together: host state, API, probes or replication, on one event loop. main() runs it;
// tests make several in one process.
#pragma once

#include <memory>
#include <string>

#include "control/host_state.h"
#include "control/options.h"
#include "control/route_table.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate {

class Control {
 public:
  // Opens the state, commits options.config when there is no version yet, listens. Errors are sentences for the
  // operator.
  static Result<std::unique_ptr<Control>> start(EventLoop& loop, const ControlOptions& options);
  ~Control();

  // The files of tokens, of the listener's certificate and of what is presented to others again (SIGHUP). After an
  // Error all of before stands.
  Result<void> reload();
  // Ends listening; open streams end with the Control.
  void stop_listening();

  HostState& host_state();
  const RouteTable& routes() const;
  std::optional<Endpoint> tcp_endpoint() const;  // as bound

 private:
  Control();
  struct Parts;
  std::shared_ptr<Parts> parts_;  // shared only with the gauges, weakly
};

}  // namespace tidegate
