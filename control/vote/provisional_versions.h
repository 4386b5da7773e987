// SPDX-License-Identifier: Apache-2.0
// ProvisionalVersions: a version that must be confirmed in time, on this host. It keeps the file that planes read
// (conf/provisional.h), and does what Probation says is due.
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
  // Commits the version before as a new one, and calls `done` with whether it did.
  using Revert = std::function<void(const ProvisionalVersion&, std::function<void(bool)> done)>;

  ProvisionalVersions(EventLoop& loop, HostState& host_state, std::string state_dir, bool leads);
  // Goes on with what the process before left: the time begins again, because nobody knows how much of it is over.
  void start(Revert revert);

  // Of the version in force too, if it is provisional: whoever leads reverts it.
  void set_leads(bool leads);

  // Call it before the version is committed or replicated, so that no crash makes it a lasting one.
  Result<void> announce(const ProvisionalVersion& provisional);
  // What was announced did not come.
  void withdraw();
  // False: that version is not provisional, or it is too late.
  bool confirm(uint64_t version);
  // Whether confirm() would.
  bool may_confirm(uint64_t version) const;
  // A journal has decided that it is confirmed. That is never too late.
  void take_confirmation(uint64_t version);

  // Where a journal decides: another host's write is about to be adopted, and was. What it says of the version's record
  // is taken over.
  Result<void> before_adopting(const WriteSet& set);
  void after_adopting();

  // What the version in force is, if it is provisional.
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

// As the state's record, and as the replica's line.
nlohmann::json to_json(const ProvisionalVersion& provisional);
// Nothing if it is null or malformed.
std::optional<ProvisionalVersion> provisional_from_json(const nlohmann::json& json);

}  // namespace tidegate
