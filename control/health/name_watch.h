// SPDX-License-Identifier: Apache-2.0
// NameWatch: looks up the names of backends for the whole edge (conf/found_backends.h says for which pools) and writes
// their addresses to the live state. Probes, forwarder, proxy and DNS take the servers from there.
//
// If a lookup fails, the last addresses are kept. This is also true after a restart and a change of the leader: stored
// addresses stay until every lookup of the name has had an answer here. Changes that come together are one commit.
// There are at most kNameCommitsPerS commits per second, which limits the cost of names that change all the time. A
// failed commit is tried again.
//
// If a name of a forwarder's pool no longer leads to a server, the server keeps its flows for kLeftServerNs: it stays
// in the record with the time at which it left, gets no new work, and is still probed.
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
  // Number of names whose last lookup found nothing new.
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
  std::set<std::string> wanted_;   // wanted keys of the book
  std::set<std::string> keeping_;  // keys for which servers that left are kept
  std::set<std::string> settled_;  // keys for which each lookup has succeeded at least once
  BackendNames names_;
  std::shared_ptr<NameWatch*> self_ = std::make_shared<NameWatch*>(this);  // null once this object is destroyed
  Timer timer_, left_timer_;
  TokenBucket commits_;
  bool committing_ = false;
  Counter& stored_;
  uint64_t pause_ms_ = 0;  // pause after a failed commit; 0: the last one succeeded
};

// The time for which a server keeps its running work after its name no longer leads to it: as long as an idle TCP flow
// stays.
constexpr uint64_t kLeftServerNs = 900 * kNsPerS;

// Computes the record of a name from the stored and the found servers. Until the lookups of this process have
// `settled`, stored servers stay in addition to the found ones. With `keeps_left`, servers that are no longer found
// stay for kLeftServerNs, marked as left. `now_ns`: realtime.
FoundName next_record(const FoundName* stored, const FoundName& found, bool settled, bool keeps_left, uint64_t now_ns);

}  // namespace tidegate
