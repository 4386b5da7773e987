// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/control/edge_simulation.h"

#include <fmt/format.h>

#include <deque>

namespace tidegate::testing {

std::string EdgeSimulation::Content::digest() const {
  std::string text = "d";
  for (const int port : ports) text += std::to_string(port);
  return text;
}

EdgeSimulation::EdgeSimulation(uint64_t seed, Flaw flaw) : random_(seed), flaw_(flaw) {
  log_.emplace_back();
  for (size_t i = 0; i < planes_.size(); ++i) {
    planes_[i].host = i / kPlanes;
    planes_[i].index = i;
    planes_[i].serves = log_[0];
  }
}

std::optional<std::string> EdgeSimulation::run() {
  for (int i = 0; i < 14; ++i) at(random(kStormNs), [this] { propose(); });
  for (int i = 0; i < 24; ++i) at(random(kStormNs), [this] { disturb(); });
  for (size_t i = 0; i < planes_.size(); ++i) at(random(kSecond), [this, i] { tend_plane(i); });
  for (size_t i = 1; i < kHosts; ++i) at(random(kSecond), [this, i] { replicate(i); });
  at(kStormNs, [this] {
    calm_ = true;
    for (Host& host : hosts_) host.cut_off = false;
    for (Plane& plane : planes_) plane.foreign_port = -1;
  });
  const uint64_t end_ns = now_ns_ + kStormNs + kCalmNs;
  while (!events_.empty() && events_.top().at_ns <= end_ns && !violation_) {
    // the event is removed, so its order does not matter any more
    const Event event = std::move(const_cast<Event&>(events_.top()));
    events_.pop();
    now_ns_ = event.at_ns;
    event.what();
    check_everything();
  }
  if (!violation_) check_calm();
  return violation_;
}

void EdgeSimulation::at(uint64_t after_ns, std::function<void()> what) {
  events_.push({now_ns_ + after_ns, order_++, std::move(what)});
}

void EdgeSimulation::violated(const std::string& what) {
  if (!violation_) violation_ = fmt::format("at {} ms: {}", now_ns_ / kMs, what);
}

// --- messages

void EdgeSimulation::send(size_t from, size_t to, std::function<void()> arrives) {
  const bool far = from != to;
  const int copies = !calm_ && chance(10) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    if (far && !calm_ && chance(8)) continue;  // lost
    // Some messages take so long that their candidate is decided before they arrive.
    const uint64_t delay_ns = !calm_ && chance(8) ? random(12 * kSecond) : kMs + random(far ? 30 * kMs : 2 * kMs);
    at(delay_ns, [this, from, to, far, arrives] {
      if (far && (hosts_[from].cut_off || hosts_[to].cut_off)) return;
      arrives();
    });
  }
}

// A plane that hangs reads the message when it continues.
void EdgeSimulation::send_to_plane(size_t index, std::function<void()> arrives, std::function<void()> lost) {
  const uint64_t life = planes_[index].life;
  send(planes_[index].host, planes_[index].host, [this, index, life, arrives, lost] {
    Plane& plane = planes_[index];
    if (!plane.alive || plane.life != life) return lost();
    const uint64_t wait_ns = plane.hangs_until_ns > now_ns_ ? plane.hangs_until_ns - now_ns_ : 0;
    if (wait_ns == 0) return arrives();
    at(wait_ns + random(kMs), [this, index, life, arrives, lost] {
      if (planes_[index].alive && planes_[index].life == life) return arrives();
      lost();
    });
  });
}

// --- controls

std::shared_ptr<EdgeSimulation::Poll> EdgeSimulation::open_poll(uint64_t id, const Content& content, bool leads,
                                                                size_t host) {
  auto poll = std::make_shared<Poll>();
  std::vector<Voter> voters;
  for (size_t i = 0; i < kPlanes; ++i) {
    poll->planes.push_back(host * kPlanes + i);
    poll->hosts.push_back(kNobody);
    voters.push_back({fmt::format("plane{}", host * kPlanes + i), chance(20)});
  }
  for (size_t other = 0; leads && other < kHosts; ++other) {
    if (other == host) continue;
    poll->planes.push_back(kNobody);
    poll->hosts.push_back(other);
    voters.push_back({fmt::format("host{}", other), hosts_[other].cut_off});
  }
  if (flaw_ == Flaw::forgets_a_voter && leads) {
    voters.pop_back();
    poll->planes.pop_back();
    poll->hosts.pop_back();
  }
  BallotRules rules;
  rules.allow_restart = true;
  if (!leads) rules.prepare_ns -= 250 * kMs;
  poll->content = content;
  poll->began_ns = now_ns_;
  poll->ballot = std::make_unique<Ballot>(id, rules, std::move(voters), now_ns_);
  return poll;
}

void EdgeSimulation::carry_out(std::shared_ptr<Poll> poll) {
  Ballot& ballot = *poll->ballot;
  for (const Ballot::Order& order : ballot.take_orders()) {
    if (order.kind == Ballot::Order::Kind::greet) greet(poll, order.voter);
    if (order.kind == Ballot::Order::Kind::prepare) prepare(poll, order.voter);
    if (order.kind == Ballot::Order::Kind::release && flaw_ != Flaw::no_release_after_refusal)
      release(poll, order.voter);
  }
  bool yes = ballot.decision() == Ballot::Decision::yes;
  if (flaw_ == Flaw::commits_at_the_first_yes && !poll->answer && ballot.decision() == Ballot::Decision::open) {
    for (const Voter& voter : ballot.voters()) yes = yes || voter.standing == Standing::yes;
  }
  if (poll->closed || (ballot.decision() == Ballot::Decision::open && !yes)) {
    if (poll->closed) return;
    const uint64_t deadline_ns = ballot.deadline_ns();
    at(deadline_ns > now_ns_ ? deadline_ns - now_ns_ : 0, [this, poll] {
      if (poll->closed) return;
      Ballot& late = *poll->ballot;
      if (flaw_ == Flaw::silence_is_consent) {
        for (size_t i = 0; i < late.voters().size(); ++i) {
          if (late.voters()[i].standing == Standing::preparing && now_ns_ >= late.voters()[i].deadline_ns) {
            late.on_vote(late.id(), i, {}, now_ns_);
          }
        }
      }
      late.on_time(now_ns_);
      carry_out(poll);
    });
    return;
  }
  poll->closed = true;
  if (poll->answer) {
    poll->answer(ballot.as_vote());
  } else {
    decided(*poll);
  }
  if (ballot.decision() == Ballot::Decision::no) carry_out(poll);
}

void EdgeSimulation::greet(const std::shared_ptr<Poll>& poll, size_t voter) {
  const uint64_t id = poll->ballot->id();
  const auto answered = [this, poll, id, voter] {
    poll->ballot->on_greeting(id, voter, Ballot::Greeting::answered, now_ns_);
    carry_out(poll);
  };
  if (poll->planes[voter] != kNobody) {
    return send_to_plane(poll->planes[voter], answered, [this, poll, id, voter] {
      poll->ballot->on_lost(id, voter, "refused", now_ns_);
      carry_out(poll);
    });
  }
  const size_t host = poll->hosts[voter];
  send(0, host, [this, host, answered] {
    if (hosts_[host].alive) send(host, 0, answered);
  });
}

void EdgeSimulation::prepare(const std::shared_ptr<Poll>& poll, size_t voter) {
  const uint64_t id = poll->ballot->id();
  if (poll->planes[voter] != kNobody) {
    const size_t plane = poll->planes[voter];
    return send_to_plane(
        plane,
        [this, poll, id, voter, plane] {
          const Vote vote = plane_prepares(plane, id, poll->content);
          send(planes_[plane].host, planes_[plane].host,
               [this, poll, id, voter, vote] { give_vote(poll, id, voter, vote); });
        },
        [this, poll, id, voter] {
          poll->ballot->on_lost(id, voter, "it ended", now_ns_);
          carry_out(poll);
        });
  }
  const size_t host = poll->hosts[voter];
  send(0, host, [this, poll, id, voter, host] {
    if (!hosts_[host].alive) return;
    host_votes(host, *poll, [this, poll, id, voter, host](const Vote& vote) {
      send(host, 0, [this, poll, id, voter, vote] { give_vote(poll, id, voter, vote); });
    });
  });
}

void EdgeSimulation::give_vote(const std::shared_ptr<Poll>& poll, uint64_t id, size_t voter, const Vote& vote) {
  std::shared_ptr<Poll> to = poll;
  if (flaw_ == Flaw::votes_of_another_candidate && !poll->answer && under_way_) {
    to = under_way_;
    id = to->ballot->id();
  }
  if (flaw_ == Flaw::keeps_late_votes && to->closed) return;
  to->ballot->on_vote(id, voter, vote, now_ns_);
  carry_out(to);
}

void EdgeSimulation::release(const std::shared_ptr<Poll>& poll, size_t voter) {
  const uint64_t id = poll->ballot->id();
  if (poll->planes[voter] != kNobody) {
    const size_t plane = poll->planes[voter];
    return send_to_plane(
        plane, [this, plane, id] { plane_releases(plane, id); }, [] {});
  }
  const size_t host = poll->hosts[voter];
  send(0, host, [this, host, id] {
    const std::shared_ptr<Poll> own = hosts_[host].poll;
    if (!hosts_[host].alive || !own || own->ballot->id() != id) return;
    own->ballot->give_up();
    carry_out(own);
  });
}

void EdgeSimulation::host_votes(size_t host, const Poll& asked, std::function<void(const Vote&)> answer) {
  const uint64_t id = asked.ballot->id();
  if (hosts_[host].replicated < asked.base) return answer(Vote::behind("it does not have the base"));
  const std::shared_ptr<Poll> last = hosts_[host].poll;
  if (last && last->ballot->id() == id) {  // the question came twice
    if (last->closed) return answer(last->ballot->as_vote());
    last->answer = [first = last->answer, answer](const Vote& vote) {
      first(vote);
      answer(vote);
    };
    return;
  }
  if (last && !last->closed && id < last->ballot->id()) return answer(Vote::no("a newer candidate is voted on"));
  if (last && !last->closed) {
    last->ballot->give_up();
    carry_out(last);
  }
  hosts_[host].poll = open_poll(id, asked.content, false, host);
  hosts_[host].poll->answer = std::move(answer);
  carry_out(hosts_[host].poll);
}

// --- the leader

void EdgeSimulation::propose() {
  Content content = log_.back();
  for (size_t i = 0; i < 3; ++i) content.ports[random(content.ports.size())] = static_cast<int>(random(kPorts));
  waiting_.push_back(content);
  begin_next();
}

void EdgeSimulation::begin_next() {
  if (!hosts_[0].alive || waiting_.empty()) return;
  if (under_way_ && flaw_ != Flaw::two_at_a_time) return;
  const Content content = waiting_.front();
  waiting_.pop_front();
  last_id_ = std::max(last_id_ + 1, now_ns_);
  ++open_polls_;
  if (open_polls_ > 1) violated("two candidates are voted on at once");
  under_way_ = open_poll(last_id_, content, true, 0);
  under_way_->base = log_.size() - 1;
  carry_out(under_way_);
}

void EdgeSimulation::decided(Poll& poll) {
  Ballot& ballot = *poll.ballot;
  const uint64_t took_ns = now_ns_ - poll.began_ns;
  if (took_ns > 5'600 * kMs) violated(fmt::format("a decision took {} ms", took_ns / kMs));
  --open_polls_;
  under_way_ = nullptr;
  if (ballot.decision() == Ballot::Decision::no) {
    ++refused_;
    check_released(ballot.id());
  } else if (chance(10)) {  // the store refuses it
    if (flaw_ != Flaw::no_release_after_failed_commit) ballot.give_up();
    check_released(ballot.id());
    ++refused_;
  } else {
    check_commit(poll);
    log_.push_back(poll.content);
    hosts_[0].replicated = log_.size() - 1;
    for (size_t plane = 0; plane < kPlanes; ++plane) at(random(kMs), [this, plane] { plane_follows(plane); });
    for (size_t host = 1; host < kHosts; ++host) {
      send(0, host, [this, host, version = log_.size() - 1] {
        if (!hosts_[host].alive || hosts_[host].replicated >= version) return;
        hosts_[host].replicated = version;
        for (size_t i = 0; i < kPlanes; ++i)
          at(random(kMs), [this, plane = host * kPlanes + i] { plane_follows(plane); });
      });
    }
  }
  at(0, [this] { begin_next(); });
}

// Invariant when a version is decided: all voters that were reached have voted, and hold the candidate.
void EdgeSimulation::check_commit(const Poll& poll) {
  const Ballot& ballot = *poll.ballot;
  for (size_t i = 0; i < ballot.voters().size(); ++i) {
    const Voter& voter = ballot.voters()[i];
    if (voter.standing == Standing::preparing) violated("committed while " + voter.name + " was asked");
    if (voter.standing == Standing::no) violated("committed against " + voter.name);
    if (voter.standing != Standing::yes) continue;
    std::vector<size_t> planes = {poll.planes[i]};
    if (poll.planes[i] == kNobody) planes = {poll.hosts[i] * kPlanes, poll.hosts[i] * kPlanes + 1};
    for (const size_t index : planes) {
      const Plane& plane = planes_[index];
      const auto said = plane.said.find(ballot.id());
      if (said != plane.said.end() && !said->second) violated(fmt::format("plane{} had said no", index));
      if (poll.planes[i] != kNobody && said == plane.said.end() && plane.life == 0) {
        violated(fmt::format("plane{} is taken for yes and was not asked", index));
      }
      if (said == plane.said.end() || !said->second) continue;
      if (plane.holding.id() != ballot.id()) violated(fmt::format("plane{} said yes and does not hold it", index));
    }
  }
  if (ballot.voters().size() != kPlanes + kHosts - 1) violated("a host was not asked");
}

// Planes on the leader's host that neither hung nor crashed release a refused candidate at once.
void EdgeSimulation::check_released(uint64_t id) {
  std::array<uint64_t, kPlanes> lives{};
  for (size_t i = 0; i < kPlanes; ++i) lives[i] = planes_[i].life;
  at(28 * kSecond, [this, id, lives] {
    for (size_t i = 0; i < kPlanes; ++i) {
      const Plane& plane = planes_[i];
      if (plane.life == lives[i] && plane.hangs_until_ns < now_ns_ && plane.holding.id() == id) {
        violated(fmt::format("plane{} still holds a candidate that was refused", i));
      }
    }
  });
}

// Brings a host that can be reached again to the leader's state, as the stream of replicas does.
void EdgeSimulation::replicate(size_t host) {
  at(kTick, [this, host] { replicate(host); });
  if (!hosts_[host].alive || !hosts_[0].alive || hosts_[host].cut_off) return;
  hosts_[host].replicated = log_.size() - 1;
}

// --- planes

Vote EdgeSimulation::plane_prepares(size_t index, uint64_t id, const Content& content) {
  plane_follows(index);
  Plane& plane = planes_[index];
  Holding::Step step = plane.holding.on_prepare(id);
  const bool refuses = step.kind == Holding::Step::Kind::refuse;
  if (refuses && flaw_ == Flaw::late_question_displaces && id < plane.holding.id())
    step = {Holding::Step::Kind::prepare, true};
  if (step.release) let_go(plane);
  if (step.kind == Holding::Step::Kind::refuse) return Vote::no(step.why);
  if (step.kind == Holding::Step::Kind::repeat) return plane.holding.last_vote();
  const int port = content.ports[index];
  const bool has_it = plane.serves && plane.serves->ports[index] == port;
  Vote vote;
  if (!has_it && plane.foreign_port == port) {
    vote = Vote::no("the port is taken");
  } else {
    plane.held = content;
    plane.held_since_ns = now_ns_;
    if (!has_it && flaw_ != Flaw::holds_nothing) plane.held_port = port;
    if (flaw_ == Flaw::serves_what_it_prepares) plane.serves = content;
  }
  plane.said[id] = vote.yes();
  plane.holding.prepared(id, content.digest(), vote, now_ns_);
  if (vote.yes() && flaw_ != Flaw::holds_without_end) {
    at(Holding::kHeldNs, [this, index, life = plane.life] {
      Plane& later = planes_[index];
      if (later.life == life && later.holding.on_time(now_ns_)) let_go(later);
    });
  }
  return vote;
}

void EdgeSimulation::plane_releases(size_t index, uint64_t id) {
  if (planes_[index].holding.on_release(id)) let_go(planes_[index]);
}

void EdgeSimulation::let_go(Plane& plane) { plane.held_port = -1; }

// Puts the newest version of its host in force, if it is a different one.
void EdgeSimulation::plane_follows(size_t index) {
  Plane& plane = planes_[index];
  if (!plane.alive || plane.hangs_until_ns > now_ns_) return;
  const size_t newest = hosts_[plane.host].replicated;
  if (plane.version == newest && plane.serves) return;
  Content content = log_[newest];
  const bool held = plane.holding.holds(content.digest());
  if (flaw_ == Flaw::adopts_what_it_holds && plane.holding.holds()) content = plane.held;
  const int port = content.ports[index];
  const bool has_it = plane.serves && plane.serves->ports[index] == port;
  if (!has_it && plane.foreign_port == port) {
    if (held) violated(fmt::format("plane{} held version {} and cannot serve it", index, newest));
    plane.refuses = true;
    return;  // it is behind, and tries again
  }
  plane.refuses = false;
  plane.serves = content;
  plane.version = newest;
  if (plane.holding.on_version(content.digest())) let_go(plane);
}

void EdgeSimulation::tend_plane(size_t index) {
  at(kTick, [this, index] { tend_plane(index); });
  plane_follows(index);
}

void EdgeSimulation::restart_plane(size_t index) {
  Plane& plane = planes_[index];
  plane.alive = false;
  ++plane.life;
  plane.holding = Holding();
  plane.said.clear();
  plane.held_port = -1;
  plane.serves.reset();
  at(random(4 * kSecond), [this, index] {
    planes_[index].alive = true;
    plane_follows(index);
  });
}

// --- what goes wrong

void EdgeSimulation::disturb() {
  const size_t index = random(planes_.size());
  Plane& plane = planes_[index];
  Host& host = hosts_[1 + random(kHosts - 1)];
  switch (random(6)) {
    case 0:
      if (plane.alive) restart_plane(index);
      break;
    case 1:
      plane.hangs_until_ns = now_ns_ + random(12 * kSecond);
      break;
    case 2:
      host.cut_off = true;
      at(random(8 * kSecond), [&host] { host.cut_off = false; });
      break;
    case 3:  // a follower's control ends; questions to it are lost
      host.alive = false;
      host.poll = nullptr;
      at(random(5 * kSecond), [&host] { host.alive = true; });
      break;
    case 4:  // the leader's control ends in the middle of a vote
      if (!hosts_[0].alive) break;
      hosts_[0].alive = false;
      if (under_way_) {
        under_way_->closed = true;
        under_way_ = nullptr;
        --open_polls_;
      }
      at(random(5 * kSecond), [this] {
        hosts_[0].alive = true;
        begin_next();
      });
      break;
    default: {  // another program takes a port that is free, for a while
      const int port = static_cast<int>(random(kPorts));
      const bool free = port != plane.held_port && !(plane.serves && plane.serves->ports[index] == port);
      if (!free) break;
      plane.foreign_port = port;
      at(random(10 * kSecond), [&plane] { plane.foreign_port = -1; });
    }
  }
}

// --- what must always hold

void EdgeSimulation::check_everything() {
  for (const Plane& plane : planes_) {
    if (plane.serves && plane.serves->ports != log_[plane.version].ports) {
      violated(
          fmt::format("plane{} serves something else than version {}, which was decided", plane.index, plane.version));
    }
    const bool late = now_ns_ > plane.held_since_ns + Holding::kHeldNs + kSecond;
    if (plane.holding.holds() && late) violated(fmt::format("plane{} holds a candidate without end", plane.index));
  }
}

// After the storm all have the newest version, and nobody holds anything.
void EdgeSimulation::check_calm() {
  if (under_way_ || !waiting_.empty()) violated("a candidate is never decided");
  for (const Plane& plane : planes_) {
    if (plane.version != log_.size() - 1 || !plane.serves) {
      violated(fmt::format("plane{} stays at version {} of {}", plane.index, plane.version, log_.size() - 1));
    }
    if (plane.holding.holds()) violated(fmt::format("plane{} holds a candidate without end", plane.index));
  }
}

}  // namespace tidegate::testing
