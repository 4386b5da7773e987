// SPDX-License-Identifier: Apache-2.0
// Ballot: the vote on one candidate, as a state machine. It has no sockets and no clock of its own, so that a test can
// run it under any schedule. A leader's voters are the planes of its host and the controls of the other hosts. Such a
// control runs its own Ballot among its planes, and the result is the host's vote.
//
//   greet every voter -> ask those that answer to prepare -> when all that were reached have voted: the decision
//
// - A voter is reached if it answers the greeting within `reach_ns`. The others are behind: the version comes to them
//   later. A voter that is known to be silent is not waited for, but it is asked if it answers in time.
// - A voter that was reached and does not vote within `prepare_ns` counts as no.
// - The decision is yes if nobody says no. Then each voter that holds the candidate waits for the version. If the
//   decision is no, every voter is told to release the candidate. A voter whose vote comes later is told so again.
//
// The caller executes the orders, and passes each answer to the Ballot, once or several times, in any order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/candidate.h"

namespace tidegate {

struct BallotRules {
  uint64_t reach_ns = 500'000'000;
  uint64_t prepare_ns = 5'000'000'000;
  bool require_all = false;    // a voter that cannot be reached counts as no
  bool allow_restart = false;  // keys that need a restart do not count as no
};

enum class Standing : uint8_t {
  greeted,      // it has not answered yet
  unreachable,  // it did not answer in time
  old,          // an earlier release, which cannot vote
  preparing,
  yes,
  no,
  behind,  // it cannot judge the candidate
};
const char* name(Standing standing);

struct Voter {
  std::string name;
  bool known_silent = false;  // it did not answer the last time

  Standing standing = Standing::greeted;
  Vote vote = {};            // its reason, even if it did not vote
  uint64_t since_ns = 0;     // when it was asked to prepare
  uint64_t deadline_ns = 0;  // deadline of the greeting or of its vote
  uint64_t took_ns = 0;      // time from the question to the vote
};

class Ballot {
 public:
  struct Order {
    enum class Kind : uint8_t { greet, prepare, release };
    Kind kind;
    size_t voter;
  };
  enum class Decision : uint8_t { open, yes, no };
  enum class Greeting : uint8_t { answered, cannot_vote };

  Ballot(uint64_t id, const BallotRules& rules, std::vector<Voter> voters, uint64_t now_ns);

  void on_greeting(uint64_t id, size_t voter, Greeting greeting, uint64_t now_ns);
  void on_vote(uint64_t id, size_t voter, Vote vote, uint64_t now_ns);
  // The question could not be asked, or its answer was lost.
  void on_lost(uint64_t id, size_t voter, std::string why, uint64_t now_ns);
  void on_time(uint64_t now_ns);
  // The candidate was accepted, but cannot be committed, or is not wanted any more.
  void give_up();

  std::vector<Order> take_orders();  // the orders since the last call
  Decision decision() const { return decision_; }
  uint64_t deadline_ns() const;  // when on_time() has something to do; UINT64_MAX: never
  uint64_t id() const { return id_; }
  const std::vector<Voter>& voters() const { return voters_; }
  // Why the decision is no: "eu1/l7: cannot bind ...". One line for each voter that caused it.
  std::vector<std::string> reasons() const;
  // Every key that needs a restart, with the voter's name: "eu1/l7: l7.workers".
  std::vector<std::string> restarts() const;
  bool needs_only_restart() const;  // the decision is no only because of keys that need a restart
  // The result as the vote of the host whose planes these voters are.
  Vote as_vote() const;

 private:
  bool is_waited_for(const Voter& voter) const;
  bool is_missing(const Voter& voter) const;
  bool is_against(const Voter& voter) const;
  void settle(Voter& voter, Standing standing, std::string why);
  void decide();

  const uint64_t id_;
  const BallotRules rules_;
  std::vector<Voter> voters_;
  std::vector<Order> orders_;
  Decision decision_ = Decision::open;
};

}  // namespace tidegate
