// SPDX-License-Identifier: Apache-2.0
#include "control/vote/candidates.h"

#include <algorithm>
#include <utility>

#include "control/api/json_bounds.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/log.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr uint64_t kGreetSilentMs = 1'000;
constexpr unsigned kCandidatesOfTermBits = 24;  // bits of an id; the other bits are the term
Counter& outcome_counter(const char* outcome) {
  return metrics().counter("tidegate_control_candidates_total", "Candidates by what became of them.",
                           {{"outcome", outcome}});
}

}  // namespace

Candidates::Candidates(EventLoop& loop, const HostState& host_state, Fleet& fleet, const std::string& state_dir,
                       uint64_t prepare_timeout_ms)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      prepare_timeout_ms_(prepare_timeout_ms),
      refused_(state_dir),
      silence_(loop, [this] { greet_the_silent(); }),
      accepted_count_(outcome_counter("accepted")),
      refused_count_(outcome_counter("refused")),
      dry_run_count_(outcome_counter("dry_run")),
      crowded_count_(outcome_counter("crowded_out")) {}

Candidates::~Candidates() { *self_ = nullptr; }

uint64_t Candidates::next_id() {
  last_id_ = std::max(last_id_ + 1, term_ == 0 ? realtime_ns() : term_ << kCandidatesOfTermBits);
  return last_id_;
}

BallotRules Candidates::rules() const {
  BallotRules rules;
  rules.prepare_ns = prepare_timeout_ms_ * kNsPerMs;
  return rules;
}

bool Candidates::when_free(std::function<bool()> turn) {
  if (waiting_.size() >= kMaxWaitingCandidates) {
    crowded_count_.add();
    return false;
  }
  waiting_.push_back(std::move(turn));
  next();
  return true;
}

// Gives the turn to the first waiter that has something to decide.
void Candidates::next() {
  while (!busy_ && !waiting_.empty()) {
    const std::function<bool()> turn = std::move(waiting_.front());
    waiting_.pop_front();
    busy_ = true;  // because code that the turn calls may ask for its own turn
    busy_ = turn();
  }
}

void Candidates::decide(Proposal proposal, Done done) {
  TIDEGATE_ASSERT(!under_way_, "one candidate at a time");
  proposal_ = std::move(proposal);
  done_ = std::move(done);
  std::vector<Seat> seats = seats_of(*proposal_.model, fleet_.own_node(proposal_.model.get()));
  for (Seat& seat : seats) seat.known_silent = silent_.contains(seat.name());
  under_way_ = std::make_shared<BallotRun>(loop_, fleet_, proposal_.message, proposal_.rules, std::move(seats),
                                           [self = self_](BallotRun& run) {
                                             if (*self != nullptr) (*self)->finish(run);
                                           });
  under_way_->start();
}

void Candidates::finish(BallotRun& run) {
  const std::shared_ptr<BallotRun> finished = std::exchange(under_way_, nullptr);
  const Ballot& ballot = run.ballot();
  Voting voting;
  voting.id = ballot.id();
  voting.accepted = ballot.decision() == Ballot::Decision::yes;
  voting.needs_only_restart = ballot.needs_only_restart();
  voting.reasons = ballot.reasons();
  voting.votes = run.votes();
  note_reach(run);
  if (proposal_.dry_run) {
    dry_run_count_.add();
  } else if (voting.accepted) {
    accepted_count_.add();
  } else {
    refused_count_.add();
    for (const std::string& reason : voting.reasons) log_warn("candidate {} refused: {}", voting.id, reason);
    refused_.add(record(run, "refused"));
  }
  const Done done = std::exchange(done_, nullptr);
  proposal_ = {};
  done(voting, [self = self_, finished, accepted = voting.accepted](bool committed) {
    if (*self == nullptr) return;
    if (!committed && accepted) finished->give_up();
    (*self)->host_state_.let_go(std::make_shared<const CandidateMessage>(finished->give_message()));
    (*self)->loop_.defer([self] {
      if (*self == nullptr) return;
      (*self)->busy_ = false;
      (*self)->next();
    });
  });
}

void Candidates::note_version(uint64_t version, const Voting& voting) {
  versions_[version] = {{"candidate", voting.id}, {"votes", voting.votes}};
  while (versions_.size() > kVotesKept) versions_.erase(versions_.begin());
}

void Candidates::note_reach(const BallotRun& run) {
  std::map<std::string, Seat> silent;  // voters that the configuration does not name any more are forgotten
  for (size_t i = 0; i < run.seats().size(); ++i) {
    const Seat& seat = run.seats()[i];
    if (run.ballot().voters()[i].standing == Standing::unreachable) {
      silent.insert_or_assign(seat.name(), seat);
    }
  }
  silent_ = std::move(silent);
  if (!silent_.empty() && !silence_.armed()) silence_.arm_after_ms(kGreetSilentMs);
}

// A voter that is back is waited for again.
void Candidates::greet_the_silent() {
  for (const auto& [name, seat] : silent_) {
    HttpClientRequest request;
    request.target = seat.plane.empty() ? "/v1/node/candidate" : "/candidate";
    request.timeout_ms = kGreetSilentMs / 2;
    auto then = [self = self_, name = name](const Result<HttpResponse>& response) {
      if (*self != nullptr && response) (*self)->silent_.erase(name);
    };
    if (seat.plane.empty()) {
      fleet_.send_to_node(*seat.other, std::move(request), std::move(then));
    } else {
      fleet_.send_to_plane(seat.plane, std::move(request), std::move(then));
    }
  }
  if (!silent_.empty()) silence_.arm_after_ms(kGreetSilentMs);
}

json Candidates::record(const BallotRun& run, const char* outcome) const {
  return {{"candidate", run.ballot().id()},    {"at_ns", realtime_ns()}, {"by", proposal_.who},
          {"comment", proposal_.comment},      {"outcome", outcome},     {"base", host_state_.manifest().version},
          {"reasons", run.ballot().reasons()}, {"votes", run.votes()}};
}

json Candidates::list() const {
  return {{"under_way", under_way_ ? record(*under_way_, "under_way") : json(nullptr)},
          {"refused", refused_.newest_first()}};
}

json Candidates::find(uint64_t id) const {
  if (under_way_ && under_way_->ballot().id() == id) return record(*under_way_, "under_way");
  return refused_.find(id);
}

json Candidates::votes_on(uint64_t version) const {
  const auto found = versions_.find(version);
  return found == versions_.end() ? json(nullptr) : found->second;
}

}  // namespace tidegate
