// SPDX-License-Identifier: Apache-2.0
// HostBallot: a host's part in the vote on its leader's candidate. It asks the planes of this host and answers for
// them.
//
// Threads: the control's loop.
#pragma once

#include <memory>
#include <vector>

#include "control/api/background.h"
#include "control/api/route_table.h"
#include "control/host_state.h"
#include "control/observe/fleet.h"
#include "control/vote/ballot_run.h"
#include "core/event_loop.h"

namespace tidegate {

class HostBallot {
 public:
  // `leads`: this control accepts writes itself, so it does not vote on candidates of others.
  HostBallot(EventLoop& loop, const HostState& host_state, Fleet& fleet, bool leads);
  ~HostBallot();
  void set_leads(bool leads) { leads_ = leads; }
  void add_routes(RouteTable& table);

 private:
  struct Waiting;
  struct Asked;
  // A longer candidate is read outside of the loop, because that takes milliseconds.
  static constexpr size_t kReadAtOnceBytes = 64 << 10;

  void vote(const ApiCall& call);
  void take(const ApiCall& call, Result<Asked> asked);
  void wait_for_base(const std::shared_ptr<Waiting>& waiting);
  void ask_planes(const Waiting& waiting);
  void release(uint64_t id);
  bool has_base(const Asked& asked) const;

  EventLoop& loop_;
  const HostState& host_state_;
  Fleet& fleet_;
  bool leads_;
  std::shared_ptr<Waiting> waiting_;  // the last candidate, while its base is not here yet
  std::shared_ptr<BallotRun> run_;    // the vote on the last candidate
  std::vector<ApiCall> callers_;      // the calls that wait for its result
  std::vector<uint64_t> released_;    // candidates that were given up while some are being read
  Background reads_;
};

}  // namespace tidegate
