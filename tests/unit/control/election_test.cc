// SPDX-License-Identifier: Apache-2.0
// The election as a state machine: by hand, and three of them under seeded schedules with a model of etcd. Messages are
// late, lost or answered late; processes stop for a while; clocks are hours apart.

#include "control/etcd/election.h"

#include <gtest/gtest.h>

#include <array>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace tidegate::etcd::election_test {

using Ask = Election::Ask;
constexpr uint64_t kMs = 1'000'000, kSecond = 1'000 * kMs, kTtl = 2 * kSecond;

Election leader(uint64_t now) {
  Election election;
  election.key_seen(0);
  EXPECT_EQ(election.next(now), Ask::grant);
  election.granted(now, 7, kTtl);
  EXPECT_EQ(election.next(now), Ask::campaign);
  election.campaigned(true, 41);
  return election;
}

TEST(Election, AsksNothingBeforeItKnowsWhoLeads) {
  Election election;
  EXPECT_EQ(election.next(kSecond), Ask::nothing);
  EXPECT_EQ(election.wake_ns(), UINT64_MAX);
  election.key_seen(5);
  EXPECT_EQ(election.next(kSecond), Ask::nothing);
  election.key_seen(0);
  EXPECT_EQ(election.next(kSecond), Ask::grant);
  EXPECT_EQ(election.next(kSecond), Ask::nothing) << "one question at a time";
}

TEST(Election, LeadsUntilItsLeaseMayHaveEndedByItsOwnClock) {
  Election election = leader(kSecond);
  EXPECT_TRUE(election.leads(kSecond + kTtl - 1));
  EXPECT_FALSE(election.leads(kSecond + kTtl));
  EXPECT_EQ(election.next(election.wake_ns()), Ask::renew);
  election.renewed(2 * kSecond, kTtl);
  EXPECT_TRUE(election.leads(2 * kSecond + kTtl - 1));
}

TEST(Election, ALostRenewalIsRepeatedAndALeaseThatEndedIsGivenUp) {
  Election election = leader(kSecond);
  uint64_t now = election.wake_ns();
  int asked = 0;
  while (election.leads(now)) {
    if (election.next(now) == Ask::renew) {
      ++asked;
      election.failed(now);
    }
    now += 10 * kMs;
  }
  EXPECT_GT(asked, 5);
  EXPECT_EQ(election.next(now), Ask::nothing) << "the key is still there: somebody has to see it end";
  EXPECT_EQ(election.lease(), 0u);
  election.key_seen(0);
  EXPECT_EQ(election.next(now + kSecond), Ask::grant);
}

TEST(Election, LosesTheLeadWhenTheKeyIsAnothers) {
  Election election = leader(kSecond);
  election.key_seen(42);
  EXPECT_FALSE(election.leads(kSecond));
  EXPECT_EQ(election.create_revision(), 0u);
}

TEST(Election, ALateAnswerDoesNotBringALeaseBack) {
  Election election = leader(kSecond);
  ASSERT_EQ(election.next(election.wake_ns()), Ask::renew);
  EXPECT_EQ(election.next(kSecond + kTtl), Ask::nothing);
  election.renewed(kSecond + 300 * kMs, kTtl);
  EXPECT_FALSE(election.leads(kSecond + kTtl));
}

TEST(Election, WhoMayNotLeadDoesNotCampaign) {
  Election election;
  election.may_lead(false);
  election.key_seen(0);
  EXPECT_EQ(election.next(kSecond), Ask::nothing);
  election.may_lead(true);
  EXPECT_EQ(election.next(kSecond), Ask::grant);
  election.granted(kSecond, 9, kTtl);
  EXPECT_EQ(election.resign(3 * kSecond), 9u);
  EXPECT_EQ(election.next(2 * kSecond), Ask::nothing);
  EXPECT_EQ(election.next(3 * kSecond), Ask::grant);
}

// --- schedules

enum class Flaw { none, lease_from_the_answer, keeps_leading_without_renewal };

// The parts of etcd that an election uses.
struct Store {
  uint64_t revision = 1, next_lease = 1;
  std::map<uint64_t, uint64_t> leases;  // the end of each lease
  uint64_t created = 0, holder = 0;     // the key: its create revision and lease; 0: none

  void expire(uint64_t now) {
    std::erase_if(leases, [&](const auto& lease) { return lease.second <= now; });
    if (created != 0 && leases.count(holder) == 0) {
      created = holder = 0;
      ++revision;
    }
  }
};

class Schedule {
 public:
  Schedule(uint64_t seed, Flaw flaw) : random_(seed), flaw_(flaw) {
    for (size_t i = 0; i < kControls; ++i) controls_[i].clock_ns = i * 3'600 * kSecond + kSecond;
  }

  // Returns the violation, or nothing.
  std::optional<std::string> run() {
    for (now_ = 0; now_ < 60 * kSecond; now_ += kStep) {
      calm_ = now_ > 45 * kSecond;
      store_.expire(now_);
      for (Control& control : controls_) turn(control);
      size_t leaders = 0;
      for (const Control& control : controls_) leaders += believes(control) ? 1 : 0;
      if (leaders > 1) return "two lead at " + std::to_string(now_ / kMs) + " ms";
    }
    size_t leaders = 0;
    for (const Control& control : controls_) leaders += believes(control) ? 1 : 0;
    return leaders == 1 ? std::nullopt : std::optional<std::string>("nobody leads after the calm");
  }

 private:
  static constexpr size_t kControls = 3;
  static constexpr uint64_t kStep = 10 * kMs, kPoll = kSecond, kPatience = 700 * kMs;
  struct Control {
    uint64_t clock_ns = 0;  // its clock, minus ours
    Election election;
    uint64_t stopped_until = 0, next_poll = 0;
    // The question in progress.
    Ask ask = Ask::nothing;
    uint64_t sent = 0, arrives = 0, answered = 0;  // arrives == 0: lost
    bool done_there = false;
    uint64_t lease = 0, ttl = 0, created = 0;  // content of the answer
    bool won = false;
    bool once_led = false;
  };

  uint64_t below(uint64_t bound) { return random_() % bound; }
  bool believes(const Control& control) const {
    if (flaw_ == Flaw::keeps_leading_without_renewal) return control.once_led && control.election.lease() != 0;
    return control.election.leads(now_ + control.clock_ns);
  }

  void turn(Control& control) {
    arrive(control);
    if (now_ < control.stopped_until) return;
    if (!calm_ && below(3'000) == 0) control.stopped_until = now_ + below(5 * kSecond);
    const uint64_t clock = now_ + control.clock_ns;
    if (now_ >= control.next_poll) {  // a read that is answered at once, or not at all
      control.next_poll = now_ + kPoll;

      if ((calm_ || below(4) != 0)) control.election.key_seen(store_.created);
    }
    answer(control, clock);
    if (control.ask != Ask::nothing) return;
    control.ask = control.election.next(clock);
    control.sent = now_;
    control.done_there = false;
    const bool lost = !calm_ && below(5) == 0;
    control.arrives = lost ? 0 : now_ + below(calm_ ? 20 * kMs : kSecond);
    control.answered = now_ + 10 * kSecond;
  }

  // Handles the question at the store, even while the asking process is stopped.
  void arrive(Control& control) {
    if (control.ask == Ask::nothing || control.done_there || control.arrives == 0 || now_ < control.arrives) return;
    control.done_there = true;
    const bool lost = !calm_ && below(5) == 0;
    control.answered = lost ? now_ + 10 * kSecond : now_ + below(calm_ ? 20 * kMs : kSecond);
    if (control.ask == Ask::grant) {
      control.lease = store_.next_lease++;
      store_.leases[control.lease] = now_ + kTtl;
    } else if (control.ask == Ask::renew) {
      const auto lease = store_.leases.find(control.election.lease());
      control.ttl = lease == store_.leases.end() ? 0 : kTtl;
      if (control.ttl != 0) lease->second = now_ + kTtl;
    } else {
      const bool alive = store_.leases.count(control.election.lease()) != 0;
      if (store_.created == 0 && alive) {
        store_.created = ++store_.revision;
        store_.holder = control.election.lease();
      }
      control.created = store_.created;
      control.won = alive && store_.holder == control.election.lease();
    }
  }

  void answer(Control& control, uint64_t clock) {
    if (control.ask == Ask::nothing) return;
    const bool came = control.done_there && now_ >= control.answered;
    if (!came && now_ < control.sent + kPatience) return;
    const Ask ask = std::exchange(control.ask, Ask::nothing);
    const uint64_t sent = (flaw_ == Flaw::lease_from_the_answer ? now_ : control.sent) + control.clock_ns;
    if (!came || (ask == Ask::campaign && control.created == 0)) return control.election.failed(clock);
    if (ask == Ask::grant) control.election.granted(sent, control.lease, kTtl);
    if (ask == Ask::renew) control.election.renewed(sent, control.ttl);
    if (ask == Ask::campaign) control.election.campaigned(control.won, control.created);
    control.once_led = control.once_led || control.won;
  }

  std::mt19937_64 random_;
  Flaw flaw_;
  Store store_;
  std::array<Control, kControls> controls_;
  uint64_t now_ = 0;
  bool calm_ = false;
};

// The number of schedules that find a violation. The first violation is stored.
size_t violations(size_t schedules, Flaw flaw, std::string& first) {
  size_t found = 0;
  for (uint64_t seed = 1; seed <= schedules; ++seed) {
    const std::optional<std::string> violated = Schedule(seed, flaw).run();
    if (!violated) continue;
    if (found++ == 0) first = "seed " + std::to_string(seed) + ": " + *violated;
  }
  return found;
}

TEST(ElectionSchedules, NeverTwoLeadAndInTheEndOneDoes) {
  std::string first;
  EXPECT_EQ(violations(100, Flaw::none, first), 0u) << first;
}

TEST(LongElectionSchedules, NeverTwoLeadAndInTheEndOneDoes) {
  std::string first;
  EXPECT_EQ(violations(10'000, Flaw::none, first), 0u) << first;
}

TEST(ElectionSchedules, FindPlantedMistakes) {
  std::string first;
  EXPECT_GT(violations(100, Flaw::lease_from_the_answer, first), 0u);
  EXPECT_GT(violations(100, Flaw::keeps_leading_without_renewal, first), 0u);
}

}  // namespace tidegate::etcd::election_test
