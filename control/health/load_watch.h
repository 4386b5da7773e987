// SPDX-License-Identifier: Apache-2.0
// LoadWatch: asks the proxies for their load, decides what share of its clients each site sheds, and keeps that in the
// live state, where every name server reads it. It asks only while a steer of the policy `shed` exists.
//
// Invariants: at most one commit a period, for all sites together, and none while no share moves. A site whose proxies
// do not answer keeps its share. After a start, or when another control leads, the shares in force go on.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/health/shed_controller.h"
#include "control/host_state.h"
#include "control/limits.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"
#include "core/metrics.h"

namespace tidegate {

// A proxy's counters as its status gives them.
struct ProxyCounters {
  uint64_t at_ns = 0, cpu_ns = 0;  // its monotonic clock; CPU time of all its threads
  uint64_t workers = 0, connections = 0, max_connections = 0;

  // Nothing if a member is missing or absurd.
  static std::optional<ProxyCounters> from_json(const nlohmann::json& status);
};

// The load between two reports in per cent: CPU time of the workers' cores, or connections of those that may be,
// whichever is higher. Nothing if the proxy was started anew, or the reports are one.
std::optional<double> load_between(const ProxyCounters& before, const ProxyCounters& now);

class LoadWatch : public std::enable_shared_from_this<LoadWatch> {
 public:
  LoadWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, uint64_t period_ms = kLoadPeriodMs);

  // Begins or ends to ask, as the model in force demands. Call it for each version.
  void update();
  // Asks once, now. `done` is called when what came of it is in force.
  void look(std::function<void()> done);
  void append_metrics(std::string& out) const;

 private:
  struct Wanted {
    std::map<std::string, uint32_t> sites;  // name, and its shed_above
    double ttl_s = 0;                       // the longest of the steers
  };
  struct SiteState {
    ShedController controller;
    double load = 0;
  };
  // Sums over the proxies of a site.
  struct Measured {
    double load_sum = 0, seconds_sum = 0;  // per cent; time between the reports
    double proxies = 0;
  };

  Wanted wanted() const;
  void tick();
  void take(const nlohmann::json& edge);
  void commit(const Wanted& wanted);
  std::map<std::string, Measured> measured_in(const nlohmann::json& edge);

  HostState& host_state_;
  Fleet& fleet_;
  uint64_t period_ms_;
  Timer timer_;
  std::map<std::string, ProxyCounters> last_;  // by node
  std::map<std::string, SiteState> sites_;     // by name
  Counter& reports_;
  Counter& missing_;
  bool committing_ = false;  // a commit is being decided
};

}  // namespace tidegate
