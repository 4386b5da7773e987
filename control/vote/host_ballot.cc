// SPDX-License-Identifier: Apache-2.0
#include "control/vote/host_ballot.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "conf/limits.h"
#include "control/api/parameters.h"
#include "control/limits.h"
#include "core/clock.h"

namespace tidegate {

namespace {

using nlohmann::json;

// The leader commits the base before its next candidate, but it comes by another connection.
constexpr uint64_t kBaseWaitMs = 1'000;
constexpr uint64_t kBaseLookMs = 2;
constexpr uint64_t kDefaultTimeoutMs = 5'000;
constexpr uint64_t kLongestTimeoutMs = 60'000;
// The leader must get this host's answer before it stops waiting.
constexpr uint64_t kMarginMs = 250;
// A leader asks about one candidate at a time. Messages of a candidate that it gave up may still be in work.
constexpr size_t kCandidatesReadAtOnce = 4;

void answer_vote(const ApiCall& call, const Vote& vote, const json& planes) {
  json body = json::parse(encode_vote(vote));
  body["planes"] = planes;
  call.respond(HttpResponse::json(200, dump(body) + "\n"));
}

}  // namespace

// A candidate that was read.
struct HostBallot::Asked {
  uint64_t base = 0;
  std::string base_digest;
  CandidateMessage message;  // for the planes
};

// A candidate whose base has not come yet.
struct HostBallot::Waiting {
  Waiting(EventLoop& loop, ApiCall from, Asked given, std::function<void()> look)
      : call(std::move(from)), asked(std::move(given)), timer(loop, std::move(look)) {}
  ApiCall call;
  Asked asked;
  uint64_t until_ns = monotonic_ns() + kBaseWaitMs * kNsPerMs;
  Timer timer;
};

HostBallot::HostBallot(EventLoop& loop, const HostState& host_state, Fleet& fleet, bool leads)
    : loop_(loop),
      host_state_(host_state),
      fleet_(fleet),
      leads_(leads),
      reads_(loop, "control-ballot", kCandidatesReadAtOnce) {}
HostBallot::~HostBallot() = default;

void HostBallot::add_routes(RouteTable& table) {
  table.add({"GET",
             "/v1/node/candidate",
             Role::replica,
             Effect::reads,
             "Whether this host votes on candidates, and on which it did last",
             {},
             {},
             [this](const ApiCall& call) {
               const json held = run_ ? json(run_->ballot().id()) : json(nullptr);
               call.respond(HttpResponse::json(200, dump({{"node", fleet_.own_node()}, {"held", held}}) + "\n"));
             }});
  ApiRoute prepare = {"POST",
                      "/v1/node/candidate",
                      Role::replica,
                      Effect::reads,
                      "Have the planes of this host prepare a candidate of its leader, and vote",
                      {{"planes", "those to ask, with commas between"},
                       QueryParameter::number("timeout", "milliseconds for their votes (5000)", 1, kLongestTimeoutMs)},
                      {"application/json"},
                      [this](const ApiCall& call) { vote(call); }};
  prepare.body_bytes = kMaxCandidateBytes;
  table.add(std::move(prepare));
  table.add({"DELETE",
             "/v1/node/candidate",
             Role::replica,
             Effect::reads,
             "Have the planes of this host release a candidate",
             {QueryParameter::number("id", "of the candidate")},
             {},
             [this](const ApiCall& call) {
               release(number_parameter(call, "id", 0));
               call.respond(HttpResponse::json(200, "{}\n"));
             }});
}

void HostBallot::vote(const ApiCall& call) {
  if (leads_) return answer_vote(call, Vote::behind("this control leads; it follows no other"), json::array());
  const size_t bytes = call.request().body.size();
  auto read = [body = call.exchange->take_body()]() -> Result<Asked> {
    const Result<CandidateVersion> candidate = decode_candidate(body);
    if (!candidate) return candidate.error();
    return Asked{candidate->base, candidate->base_digest, message_of(*candidate)};
  };
  if (bytes <= kReadAtOnceBytes) return take(call, read());
  const bool begun = reads_.run(std::move(read), [this, call](std::optional<Result<Asked>> asked) {
    take(call, asked ? *std::move(asked) : fail("it could not be read; the log says why"));
  });
  if (!begun) answer_vote(call, Vote::behind("candidates before it are still being read"), json::array());
}

void HostBallot::take(const ApiCall& call, Result<Asked> asked) {
  if (!asked) return call.respond(problem(400, "bad_candidate", asked.error().message));
  const uint64_t id = asked->message.id, last = run_ ? run_->ballot().id() : 0;
  if (std::find(released_.begin(), released_.end(), id) != released_.end()) {
    return answer_vote(call, Vote::no("the candidate was given up"), json::array());
  }
  if (id == last) {  // the question came twice, and both get one answer
    if (run_->ballot().decision() == Ballot::Decision::open) {
      callers_.push_back(call);
    } else {
      answer_vote(call, run_->ballot().as_vote(), run_->votes());
    }
    return;
  }
  if (id < last && run_->ballot().decision() == Ballot::Decision::open) {
    return answer_vote(call, Vote::no("a newer candidate is voted on"), json::array());
  }
  waiting_ = std::make_shared<Waiting>(loop_, call, *std::move(asked), [this] { wait_for_base(waiting_); });
  wait_for_base(waiting_);
}

bool HostBallot::has_base(const Asked& asked) const {
  if (asked.base == 0) return true;
  const Manifest& head = host_state_.manifest();
  if (head.version == asked.base) return head.digest == asked.base_digest;
  const Result<Manifest> base = host_state_.store().manifest(asked.base);
  return base && base->digest == asked.base_digest;
}

void HostBallot::wait_for_base(const std::shared_ptr<Waiting>& waiting) {
  const std::shared_ptr<Waiting> alive = waiting;
  if (has_base(alive->asked)) {
    waiting_ = nullptr;
    return ask_planes(*alive);
  }
  if (monotonic_ns() < alive->until_ns) return alive->timer.arm_after_ms(kBaseLookMs);
  waiting_ = nullptr;
  answer_vote(
      alive->call,
      Vote::behind(fmt::format("it has no version {}: it is at {}", alive->asked.base, host_state_.head().version)),
      json::array());
}

void HostBallot::ask_planes(const Waiting& waiting) {
  std::vector<Seat> seats;
  const std::string planes = waiting.call.request().parameter("planes").value_or("");
  for (const char* plane : {"l4", "l7", "dns"}) {
    if (("," + planes + ",").find(fmt::format(",{},", plane)) != std::string::npos) {
      seats.push_back({fleet_.own_node(), plane});
    }
  }
  BallotRules rules;
  const uint64_t timeout_ms = number_parameter(waiting.call, "timeout", kDefaultTimeoutMs);
  rules.prepare_ns = (timeout_ms > 2 * kMarginMs ? timeout_ms - kMarginMs : timeout_ms / 2) * kNsPerMs;
  rules.reach_ns = std::min(rules.reach_ns, rules.prepare_ns);
  rules.allow_restart = true;  // the leader decides about restarts
  if (run_ && run_->ballot().decision() == Ballot::Decision::open) run_->give_up();
  run_ = std::make_shared<BallotRun>(loop_, fleet_, waiting.asked.message, rules, std::move(seats),
                                     [this](BallotRun& run) {
                                       for (const ApiCall& call : std::exchange(callers_, {}))
                                         answer_vote(call, run.ballot().as_vote(), run.votes());
                                     });
  callers_.push_back(waiting.call);
  run_->start();
}

void HostBallot::release(uint64_t id) {
  if (reads_.jobs() == 0) released_.clear();
  if (reads_.jobs() > 0) released_.push_back(id);
  if (waiting_ && waiting_->asked.message.id == id) {
    answer_vote(waiting_->call, Vote::no("the candidate was given up"), json::array());
    waiting_ = nullptr;
  }
  if (run_ && run_->ballot().id() == id) run_->give_up();
}

}  // namespace tidegate
