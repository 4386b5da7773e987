// SPDX-License-Identifier: Apache-2.0
// NameWatch: looks up the names of backends for the whole edge (conf/found_backends.h says of which pools) and keeps
// what they lead to in the live state. Probes, forwarder, proxy and DNS take the servers from there.
//
// A look-up that fails keeps the last addresses. That holds across a restart and a change of the leader: what is stored
// stays until every look-up of the name has had an answer here. Changes that come together are one commit. There are at
// most kNameCommitsPerS of them a second, so a name that changes all the time costs no more. A commit that fails is
// tried again.
//
// A server to which a name of a forwarder's pool no longer leads keeps its flows for kLeftServerNs: it stays in the
// record, with the time at which it left, gets no new work and is probed on.
//
// Threads: the control's loop.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "conf/backend_names.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "core/clock.h"
#include "core/event_loop.h"
#include "core/metrics.h"
#include "core/token_bucket.h"

namespace tidegate {

class NameWatch {
 public:
  NameWatch(EventLoop& loop, HostState& host_state, Fleet& fleet);
  ~NameWatch() { *self_ = nullptr; }

  // Takes the present model of the host state.
  void update();
  size_t looked_up() const { return wanted_.size(); }
  // Names whose last look-up found nothing new.
  size_t failing() const;

 private:
  using Changes = std::vector<std::pair<std::string, std::optional<FoundName>>>;

  void schedule();
  void commit();
  void on_commit(const Result<uint64_t>& sequence);
  Changes changes();
  void wait_for_the_next_to_go();
  std::optional<FoundName> wanted_record(const std::string& key, const FoundName* stored);

  EventLoop& loop_;
  HostState& host_state_;
  Fleet& fleet_;
  std::set<std::string> wanted_;   // keys of the book
  std::set<std::string> keeping_;  // of which servers that left are kept
  std::set<std::string> settled_;  // of which each look-up had an answer once and none of them failed
  BackendNames names_;
  std::shared_ptr<NameWatch*> self_ = std::make_shared<NameWatch*>(this);  // null once this object is destroyed
  Timer timer_, left_timer_;
  TokenBucket commits_;
  bool committing_ = false;
  Counter& stored_;
  uint64_t pause_ms_ = 0;  // after a commit that failed; 0: the last one succeeded
};

// How long a server to which its name no longer leads keeps what runs there: as long as an idle TCP flow does.
constexpr uint64_t kLeftServerNs = 900 * kNsPerS;

// The record of a name from what is stored and what was found. Until the look-ups of this process have `settled`, what
// is stored stays beside what was found. With `keeps_left`, servers that are no longer found stay for kLeftServerNs, as
// ones that left. `now_ns`: realtime.
FoundName next_record(const FoundName* stored, const FoundName& found, bool settled, bool keeps_left, uint64_t now_ns);

}  // namespace tidegate
