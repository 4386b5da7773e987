// SPDX-License-Identifier: Apache-2.0
// An edge in one thread: three hosts with a control and two planes each, messages that are late, lost or repeated,
// processes that crash or hang, and another program that takes ports. A seed decides everything, so a schedule can be
// run again. The decisions are made by the real state machines, Ballot and Holding. Everything around them is as simple
// as possible.
//
// A `Flaw` is a mistake that the simulation makes on purpose, as if a state machine had it. Each of them must be found,
// which tests the test.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "conf/holding.h"
#include "control/vote/ballot.h"

namespace tidegate::testing {

enum class Flaw : uint8_t {
  none,
  votes_of_another_candidate,  // a late vote counts for the candidate in progress
  commits_at_the_first_yes,
  silence_is_consent,        // a voter that does not vote in time counts as yes
  no_release_after_refusal,  // the orders to release are not sent
  no_release_after_failed_commit,
  holds_without_end,        // a plane never releases by itself
  late_question_displaces,  // an old candidate takes the place of a newer one
  keeps_late_votes,         // a vote that comes after the refusal does not cause a release
  adopts_what_it_holds,     // for any version, the plane serves what it holds
  serves_what_it_prepares,  // before any decision
  two_at_a_time,            // the next candidate does not wait for the one before
  holds_nothing,            // a plane votes yes without taking the port
  forgets_a_voter,          // the last voter is not asked
};
constexpr std::array kFlaws = {Flaw::votes_of_another_candidate,
                               Flaw::commits_at_the_first_yes,
                               Flaw::silence_is_consent,
                               Flaw::no_release_after_refusal,
                               Flaw::no_release_after_failed_commit,
                               Flaw::holds_without_end,
                               Flaw::late_question_displaces,
                               Flaw::keeps_late_votes,
                               Flaw::adopts_what_it_holds,
                               Flaw::serves_what_it_prepares,
                               Flaw::two_at_a_time,
                               Flaw::holds_nothing,
                               Flaw::forgets_a_voter};

class EdgeSimulation {
 public:
  EdgeSimulation(uint64_t seed, Flaw flaw);
  // Runs the schedule. Returns the first violation, or nothing.
  std::optional<std::string> run();
  size_t committed() const { return log_.size() - 1; }
  size_t refused() const { return refused_; }

 private:
  static constexpr size_t kHosts = 3, kPlanes = 2;
  static constexpr int kPorts = 4;  // ports that a plane may be told to serve
  static constexpr uint64_t kMs = 1'000'000, kSecond = 1'000 * kMs;
  static constexpr uint64_t kStormNs = 60 * kSecond, kCalmNs = 50 * kSecond;
  static constexpr uint64_t kTick = 5 * kSecond;  // how often a plane or a host looks by itself

  // A version says which port each plane serves.
  struct Content {
    std::array<int, kHosts * kPlanes> ports{};
    std::string digest() const;
  };
  struct Plane {
    size_t host = 0, index = 0;
    bool alive = true;
    uint64_t life = 0;  // grows with each start: messages to an earlier life are lost
    uint64_t hangs_until_ns = 0;
    Holding holding;
    Content held;
    std::optional<Content> serves;
    size_t version = 0;  // version that it serves
    int held_port = -1;
    int foreign_port = -1;  // the port that another program has
    bool refuses = false;
    std::map<uint64_t, bool> said;  // its votes in this life, by candidate
    uint64_t held_since_ns = 0;
  };
  struct Poll {  // one Ballot with the callers that wait for it
    std::unique_ptr<Ballot> ballot;
    Content content;
    size_t base = 0;                          // the version from which it is made
    std::vector<size_t> planes;               // by voter; kNobody: the voter is a host
    std::vector<size_t> hosts;                // by voter
    std::function<void(const Vote&)> answer;  // for the poll of a host
    uint64_t began_ns = 0;
    bool closed = false;
  };
  struct Host {
    bool alive = true;
    uint64_t life = 0;
    bool cut_off = false;   // no message to and from other hosts
    size_t replicated = 0;  // number of versions of the log that it has
    std::shared_ptr<Poll> poll;
  };
  static constexpr size_t kNobody = SIZE_MAX;

  void at(uint64_t after_ns, std::function<void()> what);
  uint64_t random(uint64_t below) { return below == 0 ? 0 : random_() % below; }
  bool chance(unsigned percent) { return random(100) < percent; }
  void violated(const std::string& what);

  // Sends between hosts, or within one. A message may be late, lost or sent twice.
  void send(size_t from, size_t to, std::function<void()> arrives);
  void send_to_plane(size_t plane, std::function<void()> arrives, std::function<void()> lost);
  void carry_out(std::shared_ptr<Poll> poll);  // by value, because functions that it calls may forget the poll
  void greet(const std::shared_ptr<Poll>& poll, size_t voter);
  void prepare(const std::shared_ptr<Poll>& poll, size_t voter);
  void release(const std::shared_ptr<Poll>& poll, size_t voter);
  void give_vote(const std::shared_ptr<Poll>& poll, uint64_t id, size_t voter, const Vote& vote);
  void host_votes(size_t host, const Poll& asked, std::function<void(const Vote&)> answer);
  std::shared_ptr<Poll> open_poll(uint64_t id, const Content& content, bool leads, size_t host);

  void propose();
  void begin_next();
  void decided(Poll& poll);
  void check_commit(const Poll& poll);
  void check_released(uint64_t id);
  void replicate(size_t host);
  Vote plane_prepares(size_t plane, uint64_t id, const Content& content);
  void plane_releases(size_t plane, uint64_t id);
  void plane_follows(size_t plane);
  void let_go(Plane& plane);
  void tend_plane(size_t plane);
  void disturb();
  void restart_plane(size_t plane);
  void check_everything();
  void check_calm();

  struct Event {
    uint64_t at_ns, order;
    std::function<void()> what;
    bool operator>(const Event& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };
  std::mt19937_64 random_;
  const Flaw flaw_;
  uint64_t now_ns_ = kSecond, order_ = 0;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::array<Plane, kHosts * kPlanes> planes_;
  std::array<Host, kHosts> hosts_;
  std::vector<Content> log_;  // the leader's: log_[n] is version n
  std::deque<Content> waiting_;
  std::shared_ptr<Poll> under_way_;
  size_t open_polls_ = 0, refused_ = 0;
  uint64_t last_id_ = 0;
  bool calm_ = false;
  std::optional<std::string> violation_;
};

}  // namespace tidegate::testing
