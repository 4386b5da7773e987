// SPDX-License-Identifier: Apache-2.0
// BallotRun: executes the orders of one Ballot. It asks the planes of this host over their admin sockets, and the
// controls of other hosts by their API.
//
// Threads: the control's loop. A run keeps itself until every question is answered or has timed out.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "control/observe/fleet.h"
#include "control/vote/ballot.h"
#include "core/event_loop.h"

namespace tidegate {

// The encoded candidate, as it is sent.
struct CandidateMessage {
  uint64_t id = 0;
  std::string digest;
  std::shared_ptr<const std::string> with_keys, without_keys;  // results of encode_candidate()
};
CandidateMessage message_of(const CandidateVersion& candidate);

// A voter: a plane of this host, or the control of another host for its planes.
struct Seat {
  std::string node;
  std::string plane;                 // empty: another host
  std::optional<Node> other = {};    // set for another host
  std::string planes_of_other = {};  // "l7,dns"
  bool known_silent = false;
  std::string name() const { return plane.empty() ? node : node + "/" + plane; }
};
// The seats for a configuration: the planes of `own_node` and the other hosts.
std::vector<Seat> seats_of(const Model& model, const std::string& own_node);

class BallotRun : public std::enable_shared_from_this<BallotRun> {
 public:
  using Decided = std::function<void(BallotRun&)>;

  BallotRun(EventLoop& loop, Fleet& fleet, CandidateMessage message, const BallotRules& rules, std::vector<Seat> seats,
            Decided decided);
  void start();  // calls `decided` once, not before it returns
  void give_up();
  const Ballot& ballot() const { return ballot_; }
  const std::vector<Seat>& seats() const { return seats_; }
  // Call it after the decision: the texts of the message, so that they are freed elsewhere. They are as large as the
  // candidate.
  CandidateMessage give_message() {
    return {message_.id, {}, std::move(message_.with_keys), std::move(message_.without_keys)};
  }
  // Each voter's vote. For another host also the votes of its planes, as it reported them.
  nlohmann::json votes() const;

 private:
  void carry_out();
  void greet(size_t voter);
  void prepare(size_t voter);
  void release(size_t voter);
  bool ask_successor(size_t voter, const Result<HttpResponse>& response, void (BallotRun::*question)(size_t));
  void ask(const Seat& seat, HttpClientRequest request, std::function<void(const Result<HttpResponse>&)> answer);
  void take_vote(size_t voter, const Result<HttpResponse>& response);

  EventLoop& loop_;
  Fleet& fleet_;
  CandidateMessage message_;  // its texts are needed until the decision
  const BallotRules rules_;
  const std::vector<Seat> seats_;
  Ballot ballot_;
  Decided decided_;
  std::vector<nlohmann::json> told_;  // by voter: the planes of another host, as it reported them
  std::vector<size_t> followed_;      // by voter: how often a process answered that another one serves in its place
  Timer timer_;
};

}  // namespace tidegate
