// SPDX-License-Identifier: Apache-2.0
// SiteWatch: while no leader is heard, this host probes the backends of its own site itself. The verdicts hold on this
// host only and say so. They are gone when a leader is heard again, because its live state takes their place.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <memory>

#include "control/health/prober.h"
#include "control/health/verdict_writer.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"
#include "core/hash.h"

namespace tidegate {

class SiteWatch {
 public:
  static constexpr uint64_t kLookMs = 500;
  static constexpr uint64_t kSilenceMs = 3'000;  // the time in which another control would lead, where there is etcd

  SiteWatch(EventLoop& loop, HostState& host_state, const Fleet& fleet, const HashKey& spread_key,
            std::function<bool()> leader_is_heard);
  // This control leads now: it probes everything.
  void stop() {
    prober_.reset();
    writer_.reset();
  }
  void set_commands(std::shared_ptr<ProbeCommands> commands) { commands_ = std::move(commands); }  // of Prober
  bool probes() const { return prober_ != nullptr; }

 private:
  void look();
  std::string own_site() const;

  EventLoop& loop_;
  HostState& host_state_;
  const Fleet& fleet_;
  const HashKey spread_key_;
  std::function<bool()> leader_is_heard_;
  uint64_t heard_ns_;
  std::shared_ptr<ProbeCommands> commands_;
  std::unique_ptr<VerdictWriter> writer_;
  std::unique_ptr<Prober> prober_;
  Timer timer_;
};

}  // namespace tidegate
