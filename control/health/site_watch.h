// SPDX-License-Identifier: Apache-2.0
// SiteWatch: while there is no contact to a leader, this host itself probes the backends of its own site, and asks
// other controls of the site for their results (SiteOpinions). The verdicts are valid only on this host and say so.
// When there is contact to a leader again, its live state replaces them.
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
  static constexpr uint64_t kSilenceMs = 3'000;  // with etcd, another control would lead within this time

  static constexpr uint64_t kPatienceMs =
      2'000;                               // time for the first reports of others, before a failure here counts alone
  static constexpr size_t kMostAsked = 4;  // the number of other controls of the site that are asked

  SiteWatch(EventLoop& loop, HostState& host_state, Fleet& fleet, const HashKey& spread_key,
            std::function<bool()> leader_is_heard);
  ~SiteWatch() { *self_ = nullptr; }
  // Call it when this control begins to lead: then its Prober probes all backends.
  void stop();
  void set_commands(std::shared_ptr<ProbeCommands> commands) { commands_ = std::move(commands); }  // for the Prober
  void set_door(std::shared_ptr<const ForwarderDoor> door) { door_ = std::move(door); }            // for the Prober
  bool probes() const { return prober_ != nullptr; }
  // {"backends": {"backend/POOL/NAME": {"up", "reason"}}}: the results of this control's own probes. Empty while there
  // is contact to a leader.
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
  std::string site_;                          // set while it probes
  std::map<std::string, std::string> nodes_;  // of backends, by their keys
  SiteOpinions opinions_;
  std::set<std::string> asked_;  // nodes that have not answered yet
  // until then others may not have their first results
  uint64_t patient_until_ns_ = 0;
  std::shared_ptr<SiteWatch*> self_ = std::make_shared<SiteWatch*>(this);  // null once this object is destroyed
  std::unique_ptr<VerdictWriter> writer_;
  std::unique_ptr<Prober> prober_;
  Timer timer_;
};

}  // namespace tidegate
