// SPDX-License-Identifier: Apache-2.0
// LoadWatch: asks the proxies for their load, decides the share of clients that each site sheds, and writes the shares
// to the live state, where every name server reads them. It asks only while there is a steer with the policy `shed`.
//
// Invariants: at most one commit per period, for all sites together, and none while no share changes. A site whose
// proxies do not answer keeps its share. After a start, or when another control leads, the shares in force stay.
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

// A proxy's counters from its status.
struct ProxyCounters {
  uint64_t at_ns = 0, cpu_ns = 0;  // time on its monotonic clock; CPU time of all its threads
  uint64_t workers = 0, connections = 0, max_connections = 0;

  // The counters of a proxy's answer. Nothing if a member is missing or has an impossible value.
  static std::optional<ProxyCounters> from_json(const nlohmann::json& status);
};

// The load between two reports in per cent: the CPU time relative to the workers' cores, or the connections relative to
// their limit, whichever is higher. Nothing if the proxy was restarted, or if both are the same report.
std::optional<double> load_between(const ProxyCounters& before, const ProxyCounters& now);

class LoadWatch : public std::enable_shared_from_this<LoadWatch> {
 public:
  LoadWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, uint64_t period_ms = kLoadPeriodMs);

  // Begins or stops asking, as the model in force needs it. Call it for each version.
  void update();
  // Asks once, now. Calls `done` when the result is in force.
  void look(std::function<void()> done);
  void append_metrics(std::string& out) const;

 private:
  struct Wanted {
    std::map<std::string, uint32_t> sites;  // name, and its shed_above
    double ttl_s = 0;                       // the longest TTL of the steers
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
