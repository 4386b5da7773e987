// SPDX-License-Identifier: Apache-2.0
// OwnPlanes: asks each plane of this host for its state, several times a second. It reports the verdicts to the
// PlaneWatch of this control if it leads, and to the leading control over GET /v1/node/planes.
//
//   {"node","planes":{"l4":{"up":true,"reason":"","since_ns":0},...}}      on each change, and every kPlaneReportMs
//
// A plane is in the answer only after its first verdict.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/api/route_table.h"
#include "control/health/plane_judge.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"
#include "core/http_client.h"

namespace tidegate {

class OwnPlanes {
 public:
  using Verdicts = std::map<std::string, HealthVerdict>;  // by plane: "l4"

  OwnPlanes(EventLoop& loop, HostState& host_state, Fleet& fleet, std::string run_dir);
  ~OwnPlanes();

  // Sets the function that tells planes whether this control hears the leader. Null: there is only this control.
  void tell_planes(std::function<bool()> hears_leader) { hears_leader_ = std::move(hears_leader); }
  void add_routes(RouteTable& table);
  Verdicts verdicts() const;
  void subscribe(std::function<void()> listener) { listeners_.push_back(std::move(listener)); }

 private:
  struct Watched {
    explicit Watched(uint64_t now_ns) : judge(now_ns) {}
    PlaneJudge judge;
    std::unique_ptr<HttpCall> call;  // the question in progress, or the last one
    bool asked = false;
  };

  void update();
  void tick();
  void ask(const std::string& plane, Watched& watched);
  void take(const std::string& plane, const PlaneAnswer& answer);
  void open(const ApiCall& call);
  void report();

  EventLoop& loop_;
  HostState& host_state_;
  Fleet& fleet_;
  std::string run_dir_;
  std::function<bool()> hears_leader_;
  std::map<std::string, Watched> watched_;
  std::vector<std::function<void()>> listeners_;
  std::vector<HttpExchangePtr> streams_;
  Timer timer_;
  Timer report_timer_;
};

}  // namespace tidegate
