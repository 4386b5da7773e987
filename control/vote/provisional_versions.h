// SPDX-License-Identifier: Apache-2.0
// ProvisionalVersions: on this host, a version that must be confirmed in time. It writes the file that planes read
// (conf/provisional.h), and executes what Probation says is due.
//
// Threads: the control's loop.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/host_state.h"
#include "control/vote/probation.h"
#include "core/event_loop.h"
#include "core/result.h"

namespace tidegate {

class ProvisionalVersions {
 public:
  // Commits the previous version as a new one. Calls `done`, which says whether it did.
  using Revert = std::function<void(const ProvisionalVersion&, std::function<void(bool)> done)>;

  ProvisionalVersions(EventLoop& loop, HostState& host_state, std::string state_dir, bool leads);
  // Continues with what the previous process left. The time begins again, because nobody knows how much of it is over.
  void start(Revert revert);

  // Tells whether this control leads: the control that leads reverts a provisional version, also one that is in force
  // already.
  void set_leads(bool leads);

  // Call it before the version is committed or replicated. So a crash cannot make the version permanent.
  Result<void> announce(const ProvisionalVersion& provisional);
  // The announced version did not come.
  void withdraw();
  // Returns false if that version is not provisional, or if it is too late.
  bool confirm(uint64_t version);
  // Whether confirm() would succeed.
  bool may_confirm(uint64_t version) const;
  // A journal has decided that it is confirmed. This is never too late.
  void take_confirmation(uint64_t version);

  // With a journal: called before and after another host's write is adopted. Uses the version's record in it.
  Result<void> before_adopting(const WriteSet& set);
  void after_adopting();

  // The provisional version in force, if there is one.
  const std::optional<ProvisionalVersion>& current() const { return probation_.provisional(); }
  nlohmann::json describe() const;  // null if there is none

 private:
  void on_time();
  void arm();
  void end(const char* why);

  HostState& host_state_;
  const std::string state_dir_;
  bool leads_;
  Probation probation_;
  Revert revert_;
  Timer timer_;
};

// The form in the state's record and in the replica's stream.
nlohmann::json to_json(const ProvisionalVersion& provisional);
// Nothing if the JSON is null or malformed.
std::optional<ProvisionalVersion> provisional_from_json(const nlohmann::json& json);

}  // namespace tidegate
