// SPDX-License-Identifier: Apache-2.0
// Provisional versions under seeded schedules: three hosts with the real Probation, a journal that decides every write
// as etcd does, leaders that change, hosts that crash or are cut off, messages that are late or lost.
//
// These must always hold: only a confirmation makes a provisional version permanent; a confirmed version is not
// reverted; an acknowledged confirmation counts; no host serves an unconfirmed version longer than its time plus five
// seconds, even without contact to others; no host goes back by itself earlier; in the end all hosts serve the same
// version.
//
// A `Slip` is a mistake that is made on purpose. Each of them must be found, which tests the test.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <queue>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "control/vote/probation.h"

namespace tidegate::testing::probation_simulation_test {

enum class Slip : uint8_t {
  none,
  reverts_what_was_confirmed,  // the revert does not compare with what was decided meanwhile
  takes_late_confirmations,    // confirmations are accepted after the revert was decided
  never_goes_back_alone,
  goes_back_at_once,    // does not wait five seconds for the leader's message
  next_leader_forgets,  // a new leader does not revert a version that is due
  start_forgets,        // a restarted process does not read the file
  commits_before_it_announces,
  gives_up_a_failed_revert,
  takes_any_confirmation,  // a confirmation of any version is accepted
  stays_back,              // a host that went back does not follow again
};
constexpr std::array kSlips = {Slip::reverts_what_was_confirmed,  Slip::takes_late_confirmations,
                               Slip::never_goes_back_alone,       Slip::goes_back_at_once,
                               Slip::next_leader_forgets,         Slip::start_forgets,
                               Slip::commits_before_it_announces, Slip::gives_up_a_failed_revert,
                               Slip::takes_any_confirmation,      Slip::stays_back};

class ProbationSimulation {
 public:
  ProbationSimulation(uint64_t seed, Slip slip) : random_(seed), slip_(slip) { journal_.push_back({}); }

  // Runs the schedule. Returns the first violation, or nothing.
  std::optional<std::string> run() {
    for (size_t host = 0; host < kHosts; ++host) tend(host);
    disturb();
    operate();
    while (!events_.empty() && events_.top().at_ns < kStormNs + kCalmNs && !violation_) {
      const Event event = events_.top();
      events_.pop();
      now_ns_ = event.at_ns;
      if (!calm_ && now_ns_ >= kStormNs) become_calm();
      event.what();
      check();
    }
    if (!violation_) check_end();
    return violation_;
  }
  size_t reverted() const { return reverted_; }
  size_t confirmed() const { return confirmed_; }
  size_t went_back() const { return went_back_; }

 private:
  static constexpr size_t kHosts = 3;
  static constexpr uint64_t kMs = 1'000'000, kSecond = 1'000 * kMs;
  static constexpr uint64_t kStormNs = 60 * kSecond, kCalmNs = 40 * kSecond;
  static constexpr uint64_t kTickNs = 50 * kMs;  // how late a timer may be
  static constexpr uint64_t kAgainNs = kSecond;  // pause after a failed revert

  // A decided write: a version, provisional or not, or the confirmation of the version in force.
  struct Write {
    uint64_t version = 0;
    std::optional<ProvisionalVersion> provisional;
    bool confirms = false;
  };
  struct Host {
    bool alive = true, cut_off = false;
    Probation probation;
    std::optional<ProvisionalVersion> file;  // survives a crash
    size_t adopted = 0;                      // the last write of the journal that it has; survives a crash
    uint64_t head = 0;                       // version of that write
    uint64_t begun_ns = 0;                   // when the provisional version began here, in this life
    uint64_t led_until_ns = 0;
    bool leads = false;
  };
  struct Event {
    uint64_t at_ns, order;
    std::function<void()> what;
    bool operator>(const Event& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };

  void at(uint64_t after_ns, std::function<void()> what) {
    events_.push({now_ns_ + after_ns, ++order_, std::move(what)});
  }
  uint64_t random(uint64_t below) { return random_() % below; }
  bool chance(unsigned percent) { return random(100) < percent; }
  void violated(std::string what) {
    if (!violation_) violation_ = std::move(what) + " at " + std::to_string(now_ns_ / kMs) + " ms";
  }

  // --- the journal: it takes a write of the leader alone, on top of what the leader has
  bool decide(size_t host, Write write) {
    Host& writer = hosts_[host];
    const bool compares = slip_ != Slip::reverts_what_was_confirmed;
    if (!writer.alive || writer.cut_off || leader_ != host) return false;
    if (compares && writer.adopted != journal_.size() - 1) return false;
    journal_.push_back(std::move(write));
    adopt(host);
    return true;
  }
  uint64_t head() const { return journal_.back().version; }
  // The provisional version that was decided and is not over.
  std::optional<ProvisionalVersion> open() const { return journal_.back().provisional; }

  // --- a host takes what was decided, as ProvisionalVersions does
  void adopt(size_t host) {
    Host& to = hosts_[host];
    while (to.alive && to.adopted < journal_.size() - 1) {
      const Write& write = journal_[to.adopted + 1];
      if (slip_ == Slip::stays_back && to.file && to.file->went_back) return;
      if (write.provisional && slip_ != Slip::commits_before_it_announces) announce(host, *write.provisional);
      ++to.adopted;
      to.head = write.version;
      if (write.provisional && slip_ == Slip::commits_before_it_announces) {
        if (!calm_ && chance(20)) return crash(host);
        announce(host, *write.provisional);
      }
      if (write.confirms || (!write.provisional && to.probation.on_version(write.version))) forget(host);
      if (!write.provisional && to.file) forget(host);
    }
  }
  void announce(size_t host, const ProvisionalVersion& provisional) {
    Host& to = hosts_[host];
    to.file = provisional;
    to.begun_ns = now_ns_;
    to.probation.begin(provisional, to.leads, now_ns_);
  }
  void forget(size_t host) {
    hosts_[host].probation = {};
    hosts_[host].file.reset();
  }
  void crash(size_t host) {
    hosts_[host].alive = false;
    if (leader_ == host) leader_.reset();
    hosts_[host].leads = false;
    at(random(4 * kSecond), [this, host] { start(host); });
  }
  void start(size_t host) {
    Host& again = hosts_[host];
    if (again.alive) return;
    again.alive = true;
    again.probation = {};
    again.begun_ns = now_ns_;
    const bool in_force = again.file && again.file->version == again.head;
    if (!in_force || slip_ == Slip::start_forgets) {
      again.file.reset();
    } else {
      again.probation.begin(*again.file, again.leads, now_ns_);
    }
  }

  // --- what a host does by itself: timers, and messages of the journal
  void tend(size_t host) {
    at(random(kTickNs) + 1, [this, host] { tend(host); });
    Host& own = hosts_[host];
    if (!own.alive) return;
    if (!own.cut_off && chance(30)) adopt(host);
    if (!leader_ && !own.cut_off && chance(5)) lead(host);
    if (const auto& open = own.probation.provisional();
        slip_ == Slip::goes_back_at_once && open && !own.leads && now_ns_ >= own.begun_ns + open->confirm_ms * kMs) {
      return go_back(host);
    }
    switch (own.probation.on_time(now_ns_)) {
      case Probation::Due::nothing:
        return;
      case Probation::Due::revert:
        return revert(host);
      case Probation::Due::go_back:
        if (slip_ != Slip::never_goes_back_alone) go_back(host);
        return;
    }
  }
  void go_back(size_t host) {
    Host& own = hosts_[host];
    ++went_back_;
    own.file = own.probation.provisional();
    own.file->went_back = true;
    if (now_ns_ < own.begun_ns + own.file->confirm_ms * kMs + Probation::kPatienceNs) {
      violated("a host goes back before the leader's word can be there");
    }
  }
  void lead(size_t host) {
    leader_ = host;
    if (slip_ != Slip::reverts_what_was_confirmed) adopt(host);
    Host& own = hosts_[host];
    if (!own.alive) return;
    own.leads = true;
    if (slip_ != Slip::next_leader_forgets) own.probation.set_leads(true);
  }
  void depose() {
    if (!leader_) return;
    Host& was = hosts_[*leader_];
    was.leads = false;
    was.led_until_ns = now_ns_;
    was.probation.set_leads(false);
    leader_.reset();
  }
  void revert(size_t host) {
    const ProvisionalVersion due = *hosts_[host].probation.provisional();
    const bool fails = !calm_ && chance(30);  // etcd has no quorum
    if (!fails && decide(host, {head() + 1, std::nullopt, false})) {
      ++reverted_;
      if (confirmed_versions_.contains(due.version)) violated("a confirmed version was reverted");
      return;
    }
    if (slip_ == Slip::gives_up_a_failed_revert) return;
    hosts_[host].probation.try_again_at(now_ns_ + kAgainNs);
  }

  // --- operators
  void operate() {
    at(random(3 * kSecond) + 1, [this] { operate(); });
    if (calm_ || !leader_) return;
    const size_t host = *leader_;
    if (const std::optional<ProvisionalVersion> provisional = open()) {
      if (chance(40)) confirm(host, *provisional);
      return;
    }
    ProvisionalVersion next;
    next.version = head() + 1;
    next.back_to = head();
    next.confirm_ms = 500 + random(4'000);
    decide(host, {next.version, chance(80) ? std::optional(next) : std::nullopt, false});
  }
  void confirm(size_t host, const ProvisionalVersion& provisional) {
    // The operator means the version that was shown, perhaps some time ago.
    const uint64_t means = chance(20) && provisional.version > 1 ? provisional.version - 1 : provisional.version;
    at(random(2 * kSecond), [this, host, means] {
      if (leader_ != host || !hosts_[host].alive) return;
      Probation copy = hosts_[host].probation;
      const bool late = slip_ == Slip::takes_late_confirmations || slip_ == Slip::takes_any_confirmation;
      if (!copy.confirm(means, now_ns_) && !(late && open() && (slip_ == Slip::takes_any_confirmation))) {
        if (slip_ == Slip::takes_late_confirmations && means < head()) acknowledge(means);
        return;
      }
      if (!open() || (open()->version != means && slip_ != Slip::takes_any_confirmation)) return;
      if (decide(host, {head(), std::nullopt, true})) acknowledge(means);
    });
  }
  void acknowledge(uint64_t version) {
    ++confirmed_;
    confirmed_versions_.insert(version);
    if (head() != version) violated("a confirmation was acknowledged of a version that is not in force");
  }

  // --- what goes wrong
  void disturb() {
    at(random(kSecond) + 1, [this] { disturb(); });
    if (calm_) return;
    const size_t host = random(kHosts);
    if (chance(20)) crash_if_alive(host);
    if (chance(30)) hosts_[host].cut_off = !hosts_[host].cut_off;
    if (leader_ && (hosts_[*leader_].cut_off || chance(10))) depose();
  }
  void crash_if_alive(size_t host) {
    if (hosts_[host].alive) crash(host);
  }
  void become_calm() {
    calm_ = true;
    for (size_t host = 0; host < kHosts; ++host) {
      hosts_[host].cut_off = false;
      start(host);
    }
  }

  // --- what must hold
  bool serves_unconfirmed(const Host& host) const {
    if (!host.alive || host.adopted == 0 || !journal_[host.adopted].provisional) return false;
    return !(host.file && host.file->went_back);
  }
  void check() {
    for (const Host& host : hosts_) {
      const Write& has = journal_[host.adopted];
      if (!host.alive || !has.provisional) continue;
      const uint64_t time_ns = has.provisional->confirm_ms * kMs;
      const uint64_t end_ns = std::max(host.begun_ns + time_ns + Probation::kPatienceNs, host.led_until_ns);
      if (!host.leads && serves_unconfirmed(host) && now_ns_ > end_ns + 2 * kTickNs) {
        violated("a host serves an unconfirmed version after its time");
      }
    }
  }
  void check_end() {
    if (open()) return violated("an unconfirmed version stays");
    for (const Host& host : hosts_) {
      if (host.head != head() || host.file) return violated("a host does not serve what is in force");
    }
  }

  std::mt19937_64 random_;
  const Slip slip_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  uint64_t now_ns_ = 0, order_ = 0;
  bool calm_ = false;
  std::vector<Write> journal_;
  std::array<Host, kHosts> hosts_;
  std::optional<size_t> leader_;
  std::set<uint64_t> confirmed_versions_;
  size_t reverted_ = 0, confirmed_ = 0, went_back_ = 0;
  std::optional<std::string> violation_;
};

void run_schedules(uint64_t first, uint64_t last) {
  size_t reverted = 0, confirmed = 0, went_back = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    ProbationSimulation edge(seed, Slip::none);
    const std::optional<std::string> violation = edge.run();
    ASSERT_FALSE(violation) << "seed " << seed << ": " << *violation;
    reverted += edge.reverted();
    confirmed += edge.confirmed();
    went_back += edge.went_back();
  }
  EXPECT_GT(reverted, last - first) << "or the schedules show nothing";
  EXPECT_GT(confirmed, last - first);
  EXPECT_GT(went_back, (last - first) / 4);
}

TEST(ProbationSchedules, OnlyAConfirmationMakesAVersionLastingAndNoHostWaitsForEver) { run_schedules(1, 20); }

TEST(LongProbationSchedules, TheSameInTenThousand) { run_schedules(1, 10'000); }

TEST(ProbationSchedules, EachPlantedMistakeIsFound) {
  constexpr uint64_t kMostSchedules = 200;
  for (const Slip slip : kSlips) {
    std::optional<std::string> found;
    for (uint64_t seed = 1; seed <= kMostSchedules && !found; ++seed) found = ProbationSimulation(seed, slip).run();
    EXPECT_TRUE(found) << "mistake " << static_cast<int>(slip) << " stays unseen";
  }
}

}  // namespace tidegate::testing::probation_simulation_test
