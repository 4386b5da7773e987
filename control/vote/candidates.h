// SPDX-License-Identifier: Apache-2.0
// Candidates: one change of the configuration after the other, each voted on before it is committed. It remembers who
// is silent, the last candidates that were refused, and the votes on the last versions.
//
// Threads: the control's loop.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "control/host_state.h"
#include "control/limits.h"
#include "control/observe/fleet.h"
#include "control/vote/ballot_run.h"
#include "control/vote/refusals.h"
#include "control/vote/voting.h"
#include "core/event_loop.h"
#include "core/metrics.h"

namespace tidegate {

// What is to be voted on.
struct Proposal {
  CandidateMessage message;
  std::shared_ptr<const Model> model;  // its own
  BallotRules rules;
  bool dry_run = false;  // it is released whatever the vote is, and not remembered
  std::string who, comment;
};

class Candidates {
 public:
  Candidates(EventLoop& loop, const HostState& host_state, Fleet& fleet, const std::string& state_dir,
             uint64_t prepare_timeout_ms);
  ~Candidates();

  // Ids of candidates grow, also from one process to the next, and from one leader to the next: planes refuse an older
  // candidate while they hold a newer one. One leader for good takes the time. Of elected ones the clocks may be hours
  // apart, so they take their term, which grows with each election.
  uint64_t next_id();
  void set_term(uint64_t term) { term_ = term; }
  BallotRules rules() const;

  // Calls `turn` when no other candidate is under way: now, or later. It returns true if it called decide(). Returns
  // false if as many wait as may.
  [[nodiscard]] bool when_free(std::function<bool()> turn);
  // Has the proposal voted on. `done` commits what was accepted, and says whether it did by calling `committed` once,
  // now or later: otherwise the voters release the candidate. The next candidate has to wait for that.
  using Done = std::function<void(const Voting&, std::function<void(bool)> committed)>;
  void decide(Proposal proposal, Done done);

  // For the API. Null if there is none.
  nlohmann::json list() const;                         // {"under_way","refused":[...]}
  nlohmann::json find(uint64_t id) const;              // one of these
  nlohmann::json votes_on(uint64_t version) const;     // on one of the last versions
  void note_version(uint64_t version, const Voting&);  // `version` came of that vote

 private:
  void finish(BallotRun& run);
  void next();
  void note_reach(const BallotRun& run);
  void greet_the_silent();
  nlohmann::json record(const BallotRun& run, const char* outcome) const;

  EventLoop& loop_;
  const HostState& host_state_;
  Fleet& fleet_;
  const uint64_t prepare_timeout_ms_;
  uint64_t last_id_ = 0;
  uint64_t term_ = 0;  // 0: there are no elections
  std::deque<std::function<bool()>> waiting_;
  bool busy_ = false;
  std::shared_ptr<BallotRun> under_way_;
  Proposal proposal_;  // of under_way_
  Done done_;
  Refusals refused_;
  std::map<uint64_t, nlohmann::json> versions_;  // the votes, by version
  std::map<std::string, Seat> silent_;           // by name
  Timer silence_;
  std::shared_ptr<Candidates*> self_ = std::make_shared<Candidates*>(this);  // null once this object is destroyed
  Counter& accepted_count_;
  Counter& refused_count_;
  Counter& dry_run_count_;
  Counter& crowded_count_;
};

}  // namespace tidegate
