// SPDX-License-Identifier: Apache-2.0
// RouteAnnouncer: has BIRD announce the VIPs of this host's forwarder while it serves them, and withdraw them when it
// does not. It runs on every host that was started with --announce bird, and not only on the leader, because the
// forwarder's own host is the first to see what happens to it.
//
//   OwnPlanes, live state, version -> update() -> plan_announcements -> the file -> BirdClient: enable, disable
//
// Invariants: the file has the last decision before BIRD is told, so a BIRD that starts later agrees. Nothing is
// decided before this host's forwarder has its first verdict; until then an earlier file stays valid. A worse verdict
// counts at once, a better verdict after a wait (ReturnGuard). When control ends, nothing changes, because the
// forwarder continues to serve.
//
// Threads: the control's loop.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "control/announce/bird_client.h"
#include "control/announce/route_plan.h"
#include "control/health/own_planes.h"
#include "control/health/plane_judge.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/metrics.h"

namespace tidegate {

class RouteAnnouncer {
 public:
  RouteAnnouncer(EventLoop& loop, HostState& host_state, const Fleet& fleet, const OwnPlanes& own,
                 const std::string& socket, std::string file);

  // Call it when a plane, the live state or the version changed.
  void update();
  // {"bird":"answers","addresses":[{"vip","address","announced","why"}]}
  nlohmann::json describe() const;
  size_t announced() const;
  bool bird_answers() const { return bird_.answers() && trouble_.empty(); }

 private:
  std::optional<HealthVerdict> forwarder();
  void note_changes(const std::vector<AnnouncedAddress>& wanted);
  bool write_file();
  void step();
  void configure();
  void look_for_protocols();
  void tell(const std::string& command, const std::vector<std::string>& protocols, bool enabled);
  void on_bird();
  void fail_for_now(const std::string& why);

  EventLoop& loop_;
  HostState& host_state_;
  const Fleet& fleet_;
  const OwnPlanes& own_;
  const std::string file_;
  BirdClient bird_;
  Timer retry_;   // for BIRD, and for the file
  Timer return_;  // a better verdict on the forwarder must wait
  ReturnGuard guard_;
  std::optional<HealthVerdict> counted_;  // last verdict on the forwarder
  std::optional<std::vector<AnnouncedAddress>> wanted_;
  std::string written_;               // the file's text
  std::map<std::string, bool> told_;  // BIRD's state: protocol, and whether it is enabled
  bool needs_configure_ = true;
  bool busy_ = false;
  uint64_t decided_ns_ = 0;
  uint64_t pause_ms_ = 0;
  std::string trouble_;  // why BIRD does not have the last decision
  Counter& announced_count_;
  Counter& withdrawn_count_;
  Counter& failures_;
};

}  // namespace tidegate
