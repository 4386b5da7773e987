// SPDX-License-Identifier: Apache-2.0
// Prober: probes every backend of every pool that has a probe, and keeps the verdicts in the host state up to date.
//
// Invariants: a backend has one attempt at a time. A verdict is written only when it changes, by the VerdictWriter. A
// server that was found by a name (NameWatch) counts as a backend of its own. After a start the earlier verdicts stay
// until a probe contradicts them. A verdict is removed with its backend or with its pool's probe.
//
// Threads: the control's loop.
#pragma once

#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "control/health/dampen.h"
#include "control/health/probe.h"
#include "control/health/verdict_writer.h"
#include "control/host_state.h"
#include "core/event_loop.h"
#include "core/hash.h"
#include "core/metrics.h"

namespace tidegate {

class Prober {
 public:
  // `spread_key` decides when in the interval each backend is probed, so that probes do not come in a burst. `site`:
  // for a control that does not lead; only the backends of that site are probed. `writer` must have the same scope.
  Prober(EventLoop& loop, HostState& host_state, VerdictWriter& writer, const HashKey& spread_key,
         std::string site = {});
  ~Prober();

  // For a control that does not lead: verdicts go to `told` and are not written. The first verdict on each backend is
  // passed even if it changes nothing.
  using Told = std::function<void(const std::string& key, bool up, const std::string& reason)>;
  void tell_instead(Told told) { told_ = std::move(told); }
  // Sets the object that runs the programs of probes of type command. Without it, such probes do nothing.
  void set_commands(std::shared_ptr<ProbeCommands> commands) { commands_ = std::move(commands); }
  // Sets the object by which forwarders send probes via the VIP. Without it, such probes do nothing.
  void set_door(std::shared_ptr<const ForwarderDoor> door) { door_ = std::move(door); }
  // Uses the present model of the host state: starts, changes and stops probes.
  void update();
  size_t watched() const { return watches_.size(); }

 private:
  struct Watch {
    ProbeTarget target;
    Dampener dampener;
    std::unique_ptr<Timer> next;
    // the last attempt; it is replaced, and never destroyed inside its own callback
    std::unique_ptr<ProbeAttempt> attempt;
    bool under_way = false;
    bool told = false;            // its verdict was passed to `Told`
    uint64_t holds_until_ns = 0;  // the verdict does not change before this time
  };
  using Wanted = std::map<std::string, ProbeTarget>;

  Wanted wanted_targets() const;
  void begin(const std::string& key, const ProbeTarget& target);
  std::optional<bool> last_verdict(const std::string& key);
  void probe(const std::string& key, Watch& watch);
  void on_result(const std::string& key, Watch& watch, const ProbeResult& result);
  void remove_stale_verdicts(const Wanted& wanted);
  uint64_t with_jitter(uint64_t interval_ms);

  EventLoop& loop_;
  HostState& host_state_;
  VerdictWriter& writer_;
  HashKey spread_key_;
  const std::string site_;  // empty: this control leads
  std::map<std::string, std::unique_ptr<Watch>> watches_;
  std::shared_ptr<ProbeCommands> commands_;
  std::shared_ptr<const ForwarderDoor> door_;
  Told told_;
  uint64_t told_blind_ns_ = 0;  // when the log last said that probes cannot be made; 0: never
  std::minstd_rand jitter_;
  Counter& successes_;
  Counter& failures_;
  std::array<Counter*, kProbeCauses.size()> causes_{};
  Counter& not_looked_;
  Counter& held_;
};

}  // namespace tidegate
