// SPDX-License-Identifier: Apache-2.0
// Candidates: handles one change of the configuration after the other. Each one is voted on before it is committed. It
// remembers which voters are silent, the last refused candidates, and the votes on the last versions.
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

#include "conf/model.h"
#include "control/host_state.h"
#include "control/limits.h"
#include "control/observe/fleet.h"
#include "control/vote/ballot_run.h"
#include "control/vote/refusals.h"
#include "control/vote/voting.h"
#include "core/event_loop.h"
#include "core/metrics.h"

namespace tidegate {

// The proposal for a vote.
struct Proposal {
  CandidateMessage message;
  std::shared_ptr<const Model> model;  // the candidate's model
  BallotRules rules;
  bool dry_run = false;  // it is released after any vote, and not remembered
  std::string who, comment;
};

class Candidates {
 public:
  Candidates(EventLoop& loop, const HostState& host_state, Fleet& fleet, const std::string& state_dir,
             uint64_t prepare_timeout_ms);
  ~Candidates();

  // The id of a new candidate. Ids grow, also from one process to the next and from one leader to the next, because
  // planes refuse an older candidate while they hold a newer one. A permanent leader uses the time. The clocks of
  // elected leaders may be hours apart, so they use their term, which grows with each election.
  uint64_t next_id();
  void set_term(uint64_t term) { term_ = term; }
  BallotRules rules() const;

  // Calls `turn` when no other candidate is in progress: now, or later. `turn` returns true if it called decide().
  // Returns false if too many wait already.
  [[nodiscard]] bool when_free(std::function<bool()> turn);
  // Starts the vote on the proposal. `done` commits it if it was accepted, and reports this by calling `committed`
  // once, now or later. Without a commit, the voters release the candidate. The next candidate waits until then.
  using Done = std::function<void(const Voting&, std::function<void(bool)> committed)>;
  void decide(Proposal proposal, Done done);

  // For the API. Null if there is no such candidate or version.
  nlohmann::json list() const;                         // {"under_way","refused":[...]}
  nlohmann::json find(uint64_t id) const;              // one of these by its id
  nlohmann::json votes_on(uint64_t version) const;     // the votes on one of the last versions
  void note_version(uint64_t version, const Voting&);  // `version` is the result of that vote

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
  Proposal proposal_;  // the proposal of under_way_
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
