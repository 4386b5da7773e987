// SPDX-License-Identifier: Apache-2.0
// The vote on one candidate, step by step. promise_test.cc runs it under random schedules.
#include "control/vote/ballot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "control/vote/probation.h"

namespace tidegate::ballot_test {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Decision = Ballot::Decision;
using Greeting = Ballot::Greeting;
using Kind = Ballot::Order::Kind;

constexpr uint64_t kId = 9, kStart = 1'000'000'000, kMs = 1'000'000;

std::vector<Voter> two() { return {{"eu/l7"}, {"eu/dns"}}; }

std::vector<std::pair<Kind, size_t>> orders(Ballot& ballot) {
  std::vector<std::pair<Kind, size_t>> out;
  for (const Ballot::Order& order : ballot.take_orders()) out.emplace_back(order.kind, order.voter);
  return out;
}

TEST(Ballot, NobodyToAskIsAYes) { EXPECT_EQ(Ballot(kId, {}, {}, kStart).decision(), Decision::yes); }

TEST(Ballot, EverybodyIsGreetedAskedAndHeard) {
  Ballot ballot(kId, {}, two(), kStart);
  EXPECT_THAT(orders(ballot), ElementsAre(std::pair(Kind::greet, 0U), std::pair(Kind::greet, 1U)));
  ballot.on_greeting(kId, 1, Greeting::answered, kStart);
  EXPECT_THAT(orders(ballot), ElementsAre(std::pair(Kind::prepare, 1U)));
  ballot.on_greeting(kId, 0, Greeting::answered, kStart);
  ballot.on_vote(kId, 0, {}, kStart + 3 * kMs);
  EXPECT_EQ(ballot.decision(), Decision::open);
  ballot.on_vote(kId, 1, {}, kStart + 4 * kMs);
  EXPECT_EQ(ballot.decision(), Decision::yes);
  EXPECT_EQ(ballot.voters()[0].took_ns, 3 * kMs);
  ballot.give_up();
  EXPECT_THAT(orders(ballot),
              ElementsAre(std::pair(Kind::prepare, 0U), std::pair(Kind::release, 0U), std::pair(Kind::release, 1U)));
}

TEST(Ballot, ANoIsRefusedWithEveryReasonAndAllThatWereAskedRelease) {
  Ballot ballot(kId, {}, two(), kStart);
  ballot.on_greeting(kId, 0, Greeting::answered, kStart);
  ballot.on_greeting(kId, 1, Greeting::answered, kStart);
  orders(ballot);
  ballot.on_vote(kId, 0, Vote::no("port taken"), kStart);
  EXPECT_EQ(ballot.decision(), Decision::open) << "the other one's reason is wanted too";
  ballot.on_vote(kId, 1, Vote::no("no database"), kStart);
  EXPECT_EQ(ballot.decision(), Decision::no);
  EXPECT_THAT(ballot.reasons(), ElementsAre("eu/l7: port taken", "eu/dns: no database"));
  EXPECT_THAT(orders(ballot), ElementsAre(std::pair(Kind::release, 0U), std::pair(Kind::release, 1U)));
}

TEST(Ballot, WhoIsNotReachedIsBehindAndWhoIsSilentAfterThatIsANo) {
  Ballot ballot(kId, {}, two(), kStart);
  ballot.on_greeting(kId, 0, Greeting::answered, kStart + kMs);
  EXPECT_EQ(ballot.deadline_ns(), kStart + 500 * kMs);
  ballot.on_time(kStart + 499 * kMs);
  EXPECT_EQ(ballot.voters()[1].standing, Standing::greeted);
  ballot.on_time(kStart + 500 * kMs);
  EXPECT_EQ(ballot.voters()[1].standing, Standing::unreachable);
  ballot.on_greeting(kId, 1, Greeting::answered, kStart + 501 * kMs);
  EXPECT_EQ(ballot.voters()[1].standing, Standing::unreachable) << "too late";
  EXPECT_EQ(ballot.deadline_ns(), kStart + 5'001 * kMs);
  ballot.on_time(kStart + 5'001 * kMs);
  EXPECT_EQ(ballot.decision(), Decision::no);
  EXPECT_THAT(ballot.reasons(), ElementsAre("eu/l7: not prepared within 5000 ms"));
  orders(ballot);
  ballot.on_vote(kId, 0, {}, kStart + 6'000 * kMs);
  EXPECT_THAT(orders(ballot), ElementsAre(std::pair(Kind::release, 0U))) << "it holds the candidate after all";
}

TEST(Ballot, WhoIsKnownToBeSilentIsNotWaitedForButHeardIfItIsBack) {
  Ballot alone(kId, {}, {{"eu/l7", true}}, kStart);
  EXPECT_EQ(alone.decision(), Decision::yes);
  EXPECT_EQ(alone.voters()[0].standing, Standing::unreachable);

  Ballot ballot(kId, {}, {{"eu/l7"}, {"eu/dns", true}}, kStart);
  ballot.on_greeting(kId, 1, Greeting::answered, kStart);
  ballot.on_greeting(kId, 0, Greeting::answered, kStart);
  ballot.on_vote(kId, 0, {}, kStart);
  EXPECT_EQ(ballot.decision(), Decision::open);
  ballot.on_vote(kId, 1, Vote::no("port taken"), kStart);
  EXPECT_EQ(ballot.decision(), Decision::no);
}

TEST(Ballot, AllMayBeRequired) {
  BallotRules rules;
  rules.require_all = true;
  for (const int kind : {0, 1, 2}) {
    Ballot ballot(kId, rules, {{"eu/l7"}}, kStart);
    if (kind == 0) ballot.on_lost(kId, 0, "connection refused", kStart);
    if (kind == 1) ballot.on_greeting(kId, 0, Greeting::cannot_vote, kStart);
    if (kind == 2) {
      ballot.on_greeting(kId, 0, Greeting::answered, kStart);
      Vote vote;
      vote.missing = {"dns"};
      ballot.on_vote(kId, 0, vote, kStart);
    }
    EXPECT_EQ(ballot.decision(), Decision::no) << kind;
    EXPECT_THAT(ballot.reasons(), ElementsAre(HasSubstr("eu/l7: "))) << kind;
  }
}

TEST(Ballot, AnEarlierReleaseAndOneThatIsBehindDoNotStandInTheWay) {
  Ballot ballot(kId, {}, two(), kStart);
  ballot.on_greeting(kId, 0, Greeting::cannot_vote, kStart);
  ballot.on_greeting(kId, 1, Greeting::answered, kStart);
  ballot.on_vote(kId, 1, Vote::behind("it has no state"), kStart);
  EXPECT_EQ(ballot.decision(), Decision::yes);
  EXPECT_EQ(ballot.voters()[0].standing, Standing::old);
  EXPECT_EQ(ballot.voters()[1].standing, Standing::behind);
}

TEST(Ballot, WhatNeedsARestartIsRefusedUnlessAllowed) {
  for (const bool allowed : {false, true}) {
    BallotRules rules;
    rules.allow_restart = allowed;
    Ballot ballot(kId, rules, {{"eu/l7"}}, kStart);
    ballot.on_greeting(kId, 0, Greeting::answered, kStart);
    Vote vote;
    vote.needs_restart = {"l7.workers", "cache.disk"};
    ballot.on_vote(kId, 0, vote, kStart);
    EXPECT_EQ(ballot.decision(), allowed ? Decision::yes : Decision::no);
    EXPECT_EQ(ballot.needs_only_restart(), !allowed);
    EXPECT_THAT(ballot.restarts(), ElementsAre("eu/l7: l7.workers", "eu/l7: cache.disk"));
    if (!allowed) {
      EXPECT_THAT(ballot.reasons(),
                  ElementsAre("eu/l7: takes effect only when it starts again: l7.workers, cache.disk"));
    }
  }
}

TEST(Ballot, AnswersToOtherCandidatesAndRepetitionsCountForNothing) {
  Ballot ballot(kId, {}, {{"eu/l7"}}, kStart);
  orders(ballot);
  ballot.on_greeting(kId - 1, 0, Greeting::answered, kStart);
  ballot.on_vote(kId, 0, {}, kStart);
  EXPECT_EQ(ballot.decision(), Decision::open) << "a vote before the question";
  ballot.on_greeting(kId, 0, Greeting::answered, kStart);
  ballot.on_greeting(kId, 0, Greeting::answered, kStart);
  EXPECT_EQ(orders(ballot).size(), 1U);
  ballot.on_vote(kId - 1, 0, {}, kStart);
  EXPECT_EQ(ballot.decision(), Decision::open);
  ballot.on_vote(kId, 0, Vote::no("no"), kStart);
  ballot.on_vote(kId, 0, {}, kStart);
  EXPECT_EQ(ballot.decision(), Decision::no);
}

TEST(Ballot, AHostsVoteNamesItsPlanes) {
  BallotRules rules;
  rules.allow_restart = true;
  Ballot ballot(kId, rules, {{"eu/l4"}, {"eu/l7"}, {"eu/dns"}}, kStart);
  ballot.on_lost(kId, 0, "connection refused", kStart);
  ballot.on_greeting(kId, 1, Greeting::answered, kStart);
  ballot.on_greeting(kId, 2, Greeting::answered, kStart);
  Vote vote;
  vote.needs_restart = {"l7.workers"};
  ballot.on_vote(kId, 1, vote, kStart);
  ballot.on_vote(kId, 2, {}, kStart);
  EXPECT_EQ(ballot.as_vote().choice, Vote::Choice::yes);
  EXPECT_THAT(ballot.as_vote().missing, ElementsAre("l4"));
  EXPECT_THAT(ballot.as_vote().needs_restart, ElementsAre("l7.workers"));
}

const ProvisionalVersion kProvisional{7, "", 6, 60'000, false};
constexpr uint64_t kConfirmNs = 60'000 * kMs;

TEST(Probation, TheLeaderRevertsOnceWhatNobodyConfirmed) {
  Probation probation;
  probation.begin(kProvisional, true, kStart);
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs - 1), Probation::Due::nothing);
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs), Probation::Due::revert);
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs + 1), Probation::Due::nothing);
  EXPECT_FALSE(probation.confirm(7, kStart + kConfirmNs + 1)) << "too late";
  probation.try_again_at(kStart + kConfirmNs + 5);
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs + 5), Probation::Due::revert);
  EXPECT_TRUE(probation.on_version(8));
  EXPECT_EQ(probation.deadline_ns(), UINT64_MAX);
}

TEST(Probation, AConfirmationInTimeEndsItAndCountsForThatVersionAlone) {
  Probation probation;
  probation.begin(kProvisional, true, kStart);
  EXPECT_FALSE(probation.confirm(6, kStart));
  EXPECT_TRUE(probation.confirm(7, kStart + kConfirmNs - 1));
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs), Probation::Due::nothing);
  EXPECT_FALSE(probation.confirm(7, kStart)) << "once";
}

TEST(Probation, AHostThatBeginsToLeadRevertsWhatIsDueAndOneThatCeasesWaits) {
  Probation probation;
  probation.begin(kProvisional, false, kStart);
  probation.set_leads(true);
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs - 1), Probation::Due::nothing);
  probation.set_leads(false);
  EXPECT_EQ(probation.on_time(kStart + kConfirmNs), Probation::Due::nothing)
      << "another one leads: its word is awaited";
  const uint64_t end_ns = kStart + kConfirmNs + Probation::kPatienceNs;
  EXPECT_EQ(probation.on_time(end_ns), Probation::Due::go_back);
  probation.set_leads(true);
  EXPECT_EQ(probation.on_time(end_ns), Probation::Due::revert) << "it went back alone, and now reverts for all";
  EXPECT_FALSE(probation.confirm(7, end_ns)) << "too late";
}

TEST(Probation, AnotherHostWaitsForTheLeadersWordAndGoesBackAlone) {
  Probation probation;
  probation.begin(kProvisional, false, kStart);
  const uint64_t end_ns = kStart + kConfirmNs + Probation::kPatienceNs;
  EXPECT_EQ(probation.on_time(end_ns - 1), Probation::Due::nothing);
  EXPECT_EQ(probation.on_time(end_ns), Probation::Due::go_back);
  EXPECT_TRUE(probation.provisional()->went_back);
  EXPECT_FALSE(probation.on_version(7)) << "the version itself, said again";
  EXPECT_TRUE(probation.confirm(7, end_ns + kMs)) << "the leader had it confirmed, and is heard now";
}

}  // namespace tidegate::ballot_test
