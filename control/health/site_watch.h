// SPDX-License-Identifier: Apache-2.0
// SiteWatch: while no leader is heard, this host probes the backends of its own site itself, and asks other controls of
// the site what they see (SiteOpinions). The verdicts hold on this host only and say so. They are gone when a leader is
// heard again, because its live state takes their place.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "control/health/prober.h"
#include "control/health/site_opinions.h"
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

  static constexpr uint64_t kPatienceMs =
      2'000;                               // for the first words of others, before a failure of ours counts alone
  static constexpr size_t kMostAsked = 4;  // other controls of the site

  SiteWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, const HashKey& spread_key,
            std::function<bool()> leader_is_heard);
  ~SiteWatch() { *self_ = nullptr; }
  // This control leads now: it probes everything.
  void stop();
  void set_commands(std::shared_ptr<ProbeCommands> commands) { commands_ = std::move(commands); }  // of Prober
  void set_door(std::shared_ptr<const ForwarderDoor> door) { door_ = std::move(door); }            // of Prober
  bool probes() const { return prober_ != nullptr; }
  // {"backends": {"backend/POOL/NAME": {"up", "reason"}}}: what this control's own probes say. Empty while a leader is
  // heard.
  nlohmann::json seen() const;

 private:
  void look();
  void begin(const std::string& site);
  void ask_others(const std::string& site);
  void on_answer(const std::string& node, const Result<HttpResponse>& answer);
  void conclude_all();
  void conclude(const std::string& key);
  std::string own_site() const;

  EventLoop& loop_;
  HostState& host_state_;
  Fleet& fleet_;
  const HashKey spread_key_;
  std::function<bool()> leader_is_heard_;
  uint64_t heard_ns_;
  std::shared_ptr<const ForwarderDoor> door_;
  std::shared_ptr<ProbeCommands> commands_;
  std::string site_;                          // while it probes
  std::map<std::string, std::string> nodes_;  // of backends, by their keys
  SiteOpinions opinions_;
  std::set<std::string> asked_;                                            // nodes whose answer is not there yet
  uint64_t patient_until_ns_ = 0;                                          // others may still look for the first time
  std::shared_ptr<SiteWatch*> self_ = std::make_shared<SiteWatch*>(this);  // null once this object is destroyed
  std::unique_ptr<VerdictWriter> writer_;
  std::unique_ptr<Prober> prober_;
  Timer timer_;
};

}  // namespace tidegate
