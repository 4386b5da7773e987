// SPDX-License-Identifier: Apache-2.0
// NameWatch: looks up the names of backends for the whole edge (conf/found_backends.h says of which pools) and keeps
// what they lead to in the live state. Probes, forwarder, proxy and DNS take the servers from there.
//
// A look-up that fails keeps the last addresses. That holds across a restart and a change of the leader: what is stored
// stays until every look-up of the name has had an answer here. Changes that come together are one commit. There are at
// most kNameCommitsPerS of them a second, so a name that changes all the time costs no more. A commit that fails is
// tried again.
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
  std::optional<FoundName> wanted_record(const std::string& key, const FoundName* stored);

  EventLoop& loop_;
  HostState& host_state_;
  Fleet& fleet_;
  std::set<std::string> wanted_;   // keys of the book
  std::set<std::string> settled_;  // of which each look-up had an answer once and none of them failed
  BackendNames names_;
  std::shared_ptr<NameWatch*> self_ = std::make_shared<NameWatch*>(this);  // null once this object is destroyed
  Timer timer_;
  TokenBucket commits_;
  bool committing_ = false;
  Counter& stored_;
  uint64_t pause_ms_ = 0;  // after a commit that failed; 0: the last one succeeded
};

// The record of a name from what is stored and what was found. Until the look-ups of this process have `settled`, what
// is stored stays beside what was found.
FoundName next_record(const FoundName* stored, const FoundName& found, bool settled);

}  // namespace tidegate
