// SPDX-License-Identifier: Apache-2.0
#include "control/vote/ballot.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "core/assert.h"

namespace tidegate {

const char* name(Standing standing) {
  switch (standing) {
    case Standing::greeted:
      return "asked";
    case Standing::unreachable:
      return "unreachable";
    case Standing::old:
      return "old";
    case Standing::preparing:
      return "preparing";
    case Standing::yes:
      return "yes";
    case Standing::no:
      return "no";
    case Standing::behind:
      return "behind";
  }
  return "unknown";
}

Ballot::Ballot(uint64_t id, const BallotRules& rules, std::vector<Voter> voters, uint64_t now_ns)
    : id_(id), rules_(rules), voters_(std::move(voters)) {
  for (size_t i = 0; i < voters_.size(); ++i) {
    voters_[i].deadline_ns = now_ns + rules_.reach_ns;
    orders_.push_back({Order::Kind::greet, i});
  }
  decide();
}

void Ballot::on_greeting(uint64_t id, size_t index, Greeting greeting, uint64_t now_ns) {
  if (id != id_ || decision_ != Decision::open) return;
  Voter& voter = voters_.at(index);
  if (voter.standing != Standing::greeted) return;  // a repetition, or it came too late
  voter.known_silent = false;
  if (greeting == Greeting::cannot_vote) {
    settle(voter, Standing::old, "it is of an earlier release, which cannot refuse a version");
  } else {
    voter.standing = Standing::preparing;
    voter.since_ns = now_ns;
    voter.deadline_ns = now_ns + rules_.prepare_ns;
    orders_.push_back({Order::Kind::prepare, index});
  }
  decide();
}

void Ballot::on_vote(uint64_t id, size_t index, Vote vote, uint64_t now_ns) {
  if (id != id_) return;
  Voter& voter = voters_.at(index);
  if (decision_ == Decision::no && vote.yes()) orders_.push_back({Order::Kind::release, index});
  if (voter.standing != Standing::preparing) return;
  voter.took_ns = now_ns - voter.since_ns;
  voter.standing = vote.yes() ? Standing::yes : vote.choice == Vote::Choice::behind ? Standing::behind : Standing::no;
  voter.vote = std::move(vote);
  decide();
}

void Ballot::on_lost(uint64_t id, size_t index, std::string why, uint64_t now_ns) {
  if (id != id_) return;
  Voter& voter = voters_.at(index);
  if (voter.standing == Standing::greeted) {
    voter.known_silent = true;
    settle(voter, Standing::unreachable, std::move(why));
  } else if (voter.standing == Standing::preparing) {
    voter.took_ns = now_ns - voter.since_ns;
    settle(voter, Standing::no, std::move(why));
  }
  decide();
}

void Ballot::on_time(uint64_t now_ns) {
  for (Voter& voter : voters_) {
    if (now_ns < voter.deadline_ns) continue;
    if (voter.standing == Standing::greeted) {
      voter.known_silent = true;
      settle(voter, Standing::unreachable, fmt::format("no answer within {} ms", rules_.reach_ns / 1'000'000));
    } else if (voter.standing == Standing::preparing) {
      voter.took_ns = now_ns - voter.since_ns;
      settle(voter, Standing::no, fmt::format("not prepared within {} ms", rules_.prepare_ns / 1'000'000));
    }
  }
  decide();
}

void Ballot::give_up() {
  if (decision_ == Decision::open) {
    for (Voter& voter : voters_) {
      if (is_waited_for(voter)) settle(voter, Standing::no, "the candidate was given up");
    }
  }
  decision_ = Decision::no;
  for (size_t i = 0; i < voters_.size(); ++i) {
    // A voter without a vote is released too: it may have received the question and hold the candidate.
    if (voters_[i].since_ns != 0) orders_.push_back({Order::Kind::release, i});
  }
}

void Ballot::settle(Voter& voter, Standing standing, std::string why) {
  voter.standing = standing;
  voter.vote.choice = standing == Standing::no ? Vote::Choice::no : Vote::Choice::behind;
  voter.vote.why = std::move(why);
}

bool Ballot::is_waited_for(const Voter& voter) const {
  return voter.standing == Standing::preparing || (voter.standing == Standing::greeted && !voter.known_silent);
}

bool Ballot::is_missing(const Voter& voter) const {
  return (voter.standing != Standing::yes && voter.standing != Standing::no) || !voter.vote.missing.empty();
}

bool Ballot::is_against(const Voter& voter) const {
  return voter.standing == Standing::no || (rules_.require_all && is_missing(voter)) ||
         (!rules_.allow_restart && !voter.vote.needs_restart.empty());
}

void Ballot::decide() {
  if (decision_ != Decision::open) return;
  const auto waited_for = [this](const Voter& voter) { return is_waited_for(voter); };
  if (std::any_of(voters_.begin(), voters_.end(), waited_for)) return;
  for (Voter& voter : voters_) {
    if (voter.standing == Standing::greeted) settle(voter, Standing::unreachable, "it is known to be silent");
  }
  const auto against = [this](const Voter& voter) { return is_against(voter); };
  if (std::any_of(voters_.begin(), voters_.end(), against)) {
    give_up();
  } else {
    decision_ = Decision::yes;
  }
}

std::vector<Ballot::Order> Ballot::take_orders() { return std::exchange(orders_, {}); }

uint64_t Ballot::deadline_ns() const {
  uint64_t earliest = UINT64_MAX;
  if (decision_ != Decision::open) return earliest;
  for (const Voter& voter : voters_) {
    if (is_waited_for(voter)) earliest = std::min(earliest, voter.deadline_ns);
  }
  return earliest;
}

std::vector<std::string> Ballot::reasons() const {
  std::vector<std::string> lines;
  for (const Voter& voter : voters_) {
    if (!is_against(voter)) continue;
    if (voter.standing == Standing::yes && !rules_.allow_restart && !voter.vote.needs_restart.empty()) {
      lines.push_back(fmt::format("{}: takes effect only when it starts again: {}", voter.name,
                                  fmt::join(voter.vote.needs_restart, ", ")));
    } else if (voter.standing == Standing::yes) {
      lines.push_back(fmt::format("{}: could not be asked: {}", voter.name, fmt::join(voter.vote.missing, ", ")));
    } else {
      lines.push_back(fmt::format("{}: {}", voter.name, voter.vote.why));
    }
  }
  return lines;
}

std::vector<std::string> Ballot::restarts() const {
  std::vector<std::string> keys;
  for (const Voter& voter : voters_) {
    for (const std::string& key : voter.vote.needs_restart) keys.push_back(voter.name + ": " + key);
  }
  return keys;
}

bool Ballot::needs_only_restart() const {
  const auto for_another_reason = [this](const Voter& voter) {
    return voter.standing == Standing::no || (rules_.require_all && is_missing(voter));
  };
  return decision_ == Decision::no && !restarts().empty() &&
         std::none_of(voters_.begin(), voters_.end(), for_another_reason);
}

Vote Ballot::as_vote() const {
  TIDEGATE_ASSERT(decision_ != Decision::open, "a host votes when its planes have");
  Vote vote;
  for (const Voter& voter : voters_) {
    // The asking control knows the host, so only the plane is named.
    const std::string plane = voter.name.substr(voter.name.find('/') + 1);
    if (voter.standing == Standing::no) {
      vote.choice = Vote::Choice::no;
      vote.why += (vote.why.empty() ? "" : "; ") + plane + ": " + voter.vote.why;
    } else if (voter.standing != Standing::yes) {
      vote.missing.push_back(plane);
    }
    for (const std::string& key : voter.vote.needs_restart) vote.needs_restart.push_back(key);
  }
  return vote;
}

}  // namespace tidegate
