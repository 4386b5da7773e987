// SPDX-License-Identifier: Apache-2.0
#include "control/vote/ballot_run.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "control/api/json_bounds.h"
#include "core/clock.h"

namespace tidegate {

namespace {

using nlohmann::json;

constexpr const char* kOwnPath = "/candidate";
constexpr const char* kHostPath = "/v1/node/candidate";
constexpr uint64_t kReleaseTimeoutMs = 2'000;
constexpr uint64_t kLateMs = 1'000;  // the Ballot's own deadlines come first

std::vector<Voter> voters_of(const std::vector<Seat>& seats) {
  std::vector<Voter> voters;
  for (const Seat& seat : seats) voters.push_back({seat.name(), seat.known_silent});
  return voters;
}

// The reason that another process gives for refusing a request.
std::string refusal_of(const HttpResponse& response) {
  const Result<json> body = parse_json(response.body);
  const std::string detail = body ? string_member(*body, "detail") : std::string();
  return fmt::format("answered {}{}{}", response.status, detail.empty() ? "" : ": ", detail);
}

}  // namespace

CandidateMessage message_of(const CandidateVersion& candidate) {
  CandidateMessage message;
  message.id = candidate.id;
  message.digest = candidate.digest;
  message.with_keys = std::make_shared<const std::string>(encode_candidate(candidate, true));
  message.without_keys = std::make_shared<const std::string>(encode_candidate(candidate, false));
  return message;
}

std::vector<Seat> seats_of(const Model& model, const std::string& own_node) {
  std::vector<Seat> seats;
  for (const Node& node : model.nodes) {
    const std::vector<std::string> planes = Fleet::planes_of(node);
    if (node.name == own_node) {
      for (const std::string& plane : planes) seats.push_back({node.name, plane});
    } else if (!planes.empty()) {
      seats.push_back({node.name, "", node, fmt::format("{}", fmt::join(planes, ","))});
    }
  }
  return seats;
}

BallotRun::BallotRun(EventLoop& loop, Fleet& fleet, CandidateMessage message, const BallotRules& rules,
                     std::vector<Seat> seats, Decided decided)
    : loop_(loop),
      fleet_(fleet),
      message_(std::move(message)),
      rules_(rules),
      seats_(std::move(seats)),
      ballot_(message_.id, rules_, voters_of(seats_), monotonic_ns()),
      decided_(std::move(decided)),
      told_(seats_.size()),
      followed_(seats_.size()),
      timer_(loop, [this] {
        const auto alive = shared_from_this();
        ballot_.on_time(monotonic_ns());
        carry_out();
      }) {}

void BallotRun::start() {
  loop_.defer([weak = weak_from_this()] {
    if (const auto alive = weak.lock()) alive->carry_out();
  });
}

void BallotRun::give_up() {
  ballot_.give_up();
  carry_out();
}

void BallotRun::carry_out() {
  for (const Ballot::Order& order : ballot_.take_orders()) {
    switch (order.kind) {
      case Ballot::Order::Kind::greet:
        greet(order.voter);
        break;
      case Ballot::Order::Kind::prepare:
        prepare(order.voter);
        break;
      case Ballot::Order::Kind::release:
        release(order.voter);
        break;
    }
  }
  if (ballot_.decision() == Ballot::Decision::open) {
    timer_.arm_at_ns(ballot_.deadline_ns());
  } else if (Decided decided = std::exchange(decided_, nullptr)) {
    timer_.cancel();
    decided(*this);
  }
}

void BallotRun::ask(const Seat& seat, HttpClientRequest request,
                    std::function<void(const Result<HttpResponse>&)> answer) {
  auto then = [alive = shared_from_this(), answer = std::move(answer)](const Result<HttpResponse>& response) {
    answer(response);
    alive->carry_out();
  };
  if (seat.plane.empty()) {
    fleet_.send_to_node(*seat.other, std::move(request), std::move(then));
  } else {
    fleet_.send_to_plane(seat.plane, std::move(request), std::move(then));
  }
}

// During an upgrade, a question can wait at the socket of the old process while the new one takes the path. The old one
// answers that it is followed, and the question is asked once more. Returns true if it was asked again.
bool BallotRun::ask_successor(size_t voter, const Result<HttpResponse>& response, void (BallotRun::*question)(size_t)) {
  constexpr size_t kMost = 3;  // bound for upgrades of one plane during one ballot
  if (!response || response->status != 200 || followed_[voter] >= kMost) return false;
  const Result<json> body = parse_json(response->body);
  if (!body || !body->is_object() || string_member(*body, "state") != "followed") return false;
  ++followed_[voter];
  (this->*question)(voter);
  return true;
}

void BallotRun::greet(size_t voter) {
  const Seat& seat = seats_[voter];
  HttpClientRequest request;
  request.target = seat.plane.empty() ? kHostPath : kOwnPath;
  request.timeout_ms = rules_.reach_ns / kNsPerMs + kLateMs;
  ask(seat, std::move(request), [this, voter](const Result<HttpResponse>& response) {
    if (ask_successor(voter, response, &BallotRun::greet)) return;
    const uint64_t now_ns = monotonic_ns();
    if (!response) return ballot_.on_lost(message_.id, voter, response.error().message, now_ns);
    const Result<json> body = parse_json(response->body);
    if (response->status == 200 && body && body->is_object() && body->contains("held")) {
      return ballot_.on_greeting(message_.id, voter, Ballot::Greeting::answered, now_ns);
    }
    const bool other_refusal = response->status != 200 && response->status != 404;
    if (other_refusal) return ballot_.on_lost(message_.id, voter, refusal_of(*response), now_ns);
    ballot_.on_greeting(message_.id, voter, Ballot::Greeting::cannot_vote, now_ns);
  });
}

void BallotRun::prepare(size_t voter) {
  const Seat& seat = seats_[voter];
  HttpClientRequest request;
  request.method = "POST";
  request.timeout_ms = rules_.prepare_ns / kNsPerMs + kLateMs;
  request.headers.emplace_back("Content-Type", "application/json");
  if (seat.plane.empty()) {
    request.target =
        fmt::format("{}?planes={}&timeout={}", kHostPath, seat.planes_of_other, rules_.prepare_ns / kNsPerMs);
    request.shared_body = message_.with_keys;
  } else {
    request.target = kOwnPath;
    request.shared_body = seat.plane == "l7" ? message_.with_keys : message_.without_keys;
  }
  ask(seat, std::move(request), [this, voter](const Result<HttpResponse>& response) { take_vote(voter, response); });
}

void BallotRun::take_vote(size_t voter, const Result<HttpResponse>& response) {
  if (ask_successor(voter, response, &BallotRun::prepare)) return;
  const uint64_t now_ns = monotonic_ns();
  if (!response) return ballot_.on_lost(message_.id, voter, response.error().message, now_ns);
  if (response->status == 413) {
    return ballot_.on_vote(message_.id, voter, Vote::behind("the candidate is larger than it takes"), now_ns);
  }
  if (response->status != 200) return ballot_.on_lost(message_.id, voter, refusal_of(*response), now_ns);
  Result<Vote> vote = decode_vote(response->body);
  if (!vote) return ballot_.on_lost(message_.id, voter, "its vote cannot be read: " + vote.error().message, now_ns);
  if (const Result<json> body = parse_json(response->body)) told_[voter] = body->value("planes", json());
  ballot_.on_vote(message_.id, voter, *std::move(vote), now_ns);
}

void BallotRun::release(size_t voter) {
  const Seat& seat = seats_[voter];
  HttpClientRequest request;
  request.method = "DELETE";
  request.target = fmt::format("{}?id={}", seat.plane.empty() ? kHostPath : kOwnPath, message_.id);
  request.timeout_ms = kReleaseTimeoutMs;
  // if it is lost, the voter keeps the candidate until its own time limit
  ask(seat, std::move(request), [](const Result<HttpResponse>&) {});
}

nlohmann::json BallotRun::votes() const {
  json list = json::array();
  for (size_t i = 0; i < seats_.size(); ++i) {
    const Voter& voter = ballot_.voters()[i];
    json entry = {{"node", seats_[i].node},
                  {"vote", name(voter.standing)},
                  {"why", voter.vote.why},
                  {"needs_restart", voter.vote.needs_restart},
                  {"took_ms", static_cast<double>(voter.took_ns / 1'000) / 1'000}};
    entry["plane"] = seats_[i].plane.empty() ? json(nullptr) : json(seats_[i].plane);
    if (told_[i].is_array() && !told_[i].empty()) {
      // Another host has reported each of its planes.
      for (json plane : told_[i]) {
        plane["node"] = seats_[i].node;
        list.push_back(std::move(plane));
      }
      continue;
    }
    list.push_back(std::move(entry));
  }
  return list;
}

}  // namespace tidegate
