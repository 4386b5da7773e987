// SPDX-License-Identifier: Apache-2.0
#include "control/api/long_calls.h"

#include <fmt/format.h>

#include <utility>

#include "control/api/json_bounds.h"
#include "control/api/problem.h"
#include "control/limits.h"
#include "core/assert.h"

namespace tidegate {

namespace {

// The answer to a dry run: the changes, and what each plane said about them.
ApplyOutcome voted_on(ApplyOutcome previewed, const Voting& voting) {
  previewed.voting = voting;
  return previewed;
}

HttpResponse failed_examination() {
  return problem(500, "failed", "the call could not be worked on; the log of the control says why");
}

HttpResponse not_on_this_host(const std::string& why) { return problem(409, "not_on_this_host", why); }

HttpResponse stale() { return problem(412, "stale", "other changes came first, again and again; try again"); }

HttpResponse crowded_out() {
  HttpResponse answer = problem(409, "candidate_under_way", "as many changes wait for their vote as may; try again");
  answer.headers.emplace_back("Retry-After", "1");
  return answer;
}

}  // namespace

LongCalls::LongCalls(EventLoop& loop, HostState& host_state, Candidates& candidates, ProvisionalVersions& provisionals)
    : host_state_(host_state),
      candidates_(candidates),
      provisionals_(provisionals),
      reads_(loop, "control-reads", kMaxLongCalls),
      changes_(loop, "control-changes", kMaxLongCalls) {}

template <class Work, class Then>
void LongCalls::run(const ApiCall& call, Background& background, Work work, Then then) {
  if (!background.run(std::move(work), std::move(then))) refuse_as_busy(call);
}

void LongCalls::refuse_as_busy(const ApiCall& call) {
  busy_.add();
  HttpResponse busy = problem(503, "busy", "as many calls of this kind wait as may; try again");
  busy.headers.emplace_back("Retry-After", "1");
  call.respond(std::move(busy));
}

// The answer names each change, so for a large document it is written outside of the loop. The answer to a completed
// change is sent even if many reads wait.
void LongCalls::answer_change(const ApiCall& call, ApplyOutcome outcome) {
  const size_t elements = outcome.changes.size() + outcome.faults.size();
  const auto kept = std::make_shared<ApplyOutcome>(std::move(outcome));
  answer_list(call, elements, [kept] {
    HttpResponse response = answer_write(*kept);
    *kept = {};  // freed here
    return response;
  });
}

void LongCalls::answer_list(const ApiCall& call, size_t elements, std::function<HttpResponse()> read) {
  const auto respond = [call](std::optional<HttpResponse> response) {
    call.respond(response ? *std::move(response) : failed_examination());
  };
  const bool beside = elements > kElementsAnsweredAtOnce && reads_.run(read, respond);
  if (!beside) respond(read());
}

void LongCalls::with_version(const ApiCall& call, uint64_t number,
                             std::function<void(std::shared_ptr<const Manifest>)> then) {
  auto read = [this, number]() -> Result<std::shared_ptr<const Manifest>> {
    Result<Manifest> manifest = host_state_.store().manifest(number);
    if (!manifest) return manifest.error();
    return std::make_shared<const Manifest>(*std::move(manifest));
  };
  run(call, reads_, std::move(read),
      [call, then = std::move(then)](const std::optional<Result<std::shared_ptr<const Manifest>>>& manifest) {
        if (!manifest) return call.respond(failed_examination());
        if (!*manifest) return call.respond(problem(404, "no_such_version", manifest->error().message));
        then(**manifest);
      });
}

void LongCalls::answer(const ApiCall& call, std::function<HttpResponse()> read) {
  run(call, reads_, std::move(read), [call](std::optional<HttpResponse> response) {
    call.respond(response ? std::move(*response) : failed_examination());
  });
}

std::optional<HttpResponse> LongCalls::refusal(const ApiCall& call, const Change& change) const {
  if (!change.needs_precondition && call.request().header("if-match").empty()) return std::nullopt;
  return check_precondition(call.request(), host_state_.manifest(), change.target);
}

void LongCalls::change(const ApiCall& call, Change change, int attempt) {
  if (auto refused = refusal(call, change)) return call.respond(std::move(*refused));
  const uint64_t base = host_state_.manifest().version;
  // Copied before `change` is moved, because compilers may evaluate arguments in any order.
  ApplyRequest request = apply_request(call);
  if (change.adjust) change.adjust(request);
  // If the answer depends on nothing else, it is written there too, because it names every change or every fault of a
  // document.
  auto work = [examine = change.examine, manifest = host_state_.shared_manifest(), plans = host_state_.plans(),
               why_not = why_not_, of_base = change.of_base, id = candidates_.next_id()]() {
    Examined examined = examine(*manifest, plans.get());
    if (examined.answer) return examined;
    if (const auto why = examined.candidate.model ? why_not(*examined.candidate.model) : std::nullopt) {
      return Examined{not_on_this_host(*why), {}};
    }
    if (!examined.candidate.model && !of_base) {
      examined.answer = answer_write(preview(*manifest, examined.candidate));
      examined.candidate = {};  // freed here
    }
    if (examined.candidate.model) {
      examined.message = message_of(as_sent(examined.candidate, id, *manifest));
      examined.previewed = preview(*manifest, examined.candidate);
    }
    return examined;
  };
  run(call, changes_, std::move(work),
      [this, call, change = std::move(change), base, attempt](std::optional<Examined> examined) {
        finish(call, change, base, attempt, std::move(examined));
      });
}

// Runs on the loop. The version in force may have changed meanwhile.
void LongCalls::finish(const ApiCall& call, const Change& change, uint64_t base, int attempt,
                       std::optional<Examined> examined) {
  TIDEGATE_ASSERT(attempt >= 1 && attempt <= kMaxAttempts, "a change is examined a few times at most");
  if (!examined) return call.respond(failed_examination());
  if (examined->answer) return call.respond(std::move(*examined->answer));
  const auto kept = std::make_shared<Examined>(std::move(*examined));
  const bool waits = candidates_.when_free(
      [this, call, change, base, attempt, kept] { return decide(call, change, base, attempt, kept); });
  if (!waits) call.respond(crowded_out());
}

// Starts the vote on a change whose turn has come. No other change can be committed until this one is decided. Returns
// false if there is no vote, because the call was answered.
bool LongCalls::decide(const ApiCall& call, const Change& change, uint64_t base, int attempt,
                       const std::shared_ptr<Examined>& examined) {
  if (auto refused = refusal(call, change)) {
    call.respond(std::move(*refused));
    return false;
  }
  const Manifest& in_force = host_state_.manifest();
  if (change.of_base && in_force.version != base) {
    if (attempt < kMaxAttempts) {
      this->change(call, change, attempt + 1);
    } else {
      call.respond(stale());
    }
    return false;
  }
  ApplyRequest request = apply_request(call);
  if (change.adjust) change.adjust(request);
  const bool usual = in_force.version == base && examined->candidate.model != nullptr;
  if (!usual) examined->previewed = preview(in_force, examined->candidate);
  if (examined->previewed.status != ApplyOutcome::Status::dry_run) {
    answer_change(call, std::move(examined->previewed));
    return false;
  }
  if (auto refusal = refuse_while_provisional(request)) {
    call.respond(*std::move(refusal));
    return false;
  }
  if (in_force.version != base) {  // rare: a whole document was examined while another change was committed
    examined->message = message_of(as_sent(examined->candidate, candidates_.next_id(), in_force));
  }
  const std::string digest = examined->message.digest;
  candidates_.decide(
      proposal(std::move(examined->message), examined->candidate.model, request),
      [this, call, examined, request, digest](const Voting& voting, const std::function<void(bool)>& committed) {
        const auto answer = [this, call, examined, voting, committed](ApplyOutcome outcome) {
          const bool done = outcome.status == ApplyOutcome::Status::committed;
          if (done) candidates_.note_version(outcome.manifest.version, voting);
          answer_change(call, std::move(outcome));
          // The callers hold `examined` until this returns. So its content is moved out, and freed outside of the loop.
          changes_.discard(std::make_shared<Examined>(std::move(*examined)));
          committed(done);
        };
        if (!voting.accepted) return answer(refused(voting));
        if (request.dry_run) return answer(voted_on(std::move(examined->previewed), voting));
        const auto accepted = [this, examined, request, voting] {
          return commit(host_state_, examined->candidate, examined->previewed, request, voting);
        };
        commit_accepted(request, digest, accepted, answer);
      });
  return true;
}

// A provisional version must be confirmed or reverted before anything else changes. A rollback also ends it.
std::optional<HttpResponse> LongCalls::refuse_while_provisional(const ApplyRequest& request) const {
  const std::optional<ProvisionalVersion>& provisional = provisionals_.current();
  if (request.dry_run) return std::nullopt;
  if (request.confirm_ms != 0 && host_state_.manifest().version == 0) {
    return problem(409, "nothing_before", "the first version cannot be provisional: there is none to go back to");
  }
  if (!provisional || request.rollback_of != 0) return std::nullopt;
  return problem(409, "provisional",
                 fmt::format("version {} is provisional: confirm it, or roll back to {}", provisional->version,
                             provisional->back_to));
}

void LongCalls::commit_accepted(const ApplyRequest& request, const std::string& digest,
                                std::function<ApplyOutcome()> commit, std::function<void(ApplyOutcome)> done) {
  if (request.confirm_ms == 0) return host_state_.decide_version<ApplyOutcome>(std::move(commit), std::move(done));
  const uint64_t base = host_state_.manifest().version;
  const ProvisionalVersion provisional{base + 1, digest, base, request.confirm_ms};
  if (Result<void> said = provisionals_.announce(provisional); !said) {
    return done(FailedWrite<ApplyOutcome>::of(said.error()));
  }
  auto with_record = [this, provisional, commit = std::move(commit)] {
    // With a journal, the other hosts get the provisional record together with the version. Without a journal, they get
    // it by the replica's stream.
    if (host_state_.has_journal()) host_state_.set_next_provisional(dump(to_json(provisional)));
    ApplyOutcome outcome = commit();
    host_state_.set_next_provisional({});
    return outcome;
  };
  host_state_.decide_version<ApplyOutcome>(std::move(with_record),
                                           [this, done = std::move(done)](ApplyOutcome outcome) {
                                             if (outcome.status != ApplyOutcome::Status::committed)
                                               provisionals_.withdraw();
                                             done(std::move(outcome));
                                           });
}

void LongCalls::revert(const ProvisionalVersion& provisional, std::function<void(bool)> done) {
  auto work = [this, back_to = provisional.back_to, in_force = host_state_.shared_manifest(),
               plans = host_state_.plans(), id = candidates_.next_id()]() -> std::shared_ptr<Examined> {
    const Result<Manifest> manifest = host_state_.store().manifest(back_to);
    if (!manifest) return nullptr;
    Result<Candidate> candidate = candidate_of(host_state_, *manifest, plans.get());
    if (!candidate || !candidate->model) return nullptr;
    auto examined = std::make_shared<Examined>();
    examined->candidate = *std::move(candidate);
    examined->message = message_of(as_sent(examined->candidate, id, *in_force));
    examined->previewed = preview(*in_force, examined->candidate);
    return examined;
  };
  const auto then = [this, provisional, done](const std::optional<std::shared_ptr<Examined>>& examined) {
    if (!examined || !*examined) return done(false);
    auto turn = [this, provisional, examined = *examined, done] { return decide_revert(provisional, examined, done); };
    if (!candidates_.when_free(std::move(turn))) done(false);
  };
  if (!changes_.run(std::move(work), then)) done(false);
}

bool LongCalls::decide_revert(const ProvisionalVersion& provisional, const std::shared_ptr<Examined>& examined,
                              const std::function<void(bool)>& done) {
  // The revert is made for the provisional version, which must still be in force.
  if (host_state_.manifest().version != provisional.version) return false;  // something else has ended it
  ApplyRequest request{"control", fmt::format("version {} was not confirmed", provisional.version),
                       provisional.back_to};
  request.allow_restart = true;
  if (examined->previewed.status != ApplyOutcome::Status::dry_run) {
    done(false);
    return false;
  }
  candidates_.decide(
      proposal(std::move(examined->message), examined->candidate.model, request),
      [this, examined, request, done, provisional](const Voting& voting, const std::function<void(bool)>& committed) {
        auto write = [this, examined, request, voting] {
          return commit(host_state_, examined->candidate, examined->previewed, request, voting);
        };
        // With a journal, a confirmation may have been decided before it is this write's turn. Without one, the time is
        // over on this host, so no confirmation is accepted any more.
        auto refuse = [this, provisional]() -> std::optional<Error> {
          if (!host_state_.has_journal()) return std::nullopt;
          if (provisionals_.current() && provisionals_.current()->version == provisional.version) return std::nullopt;
          return fail("the version is not provisional any more");
        };
        auto then = [this, examined, voting, done, committed](ApplyOutcome outcome) {
          const bool written = outcome.status == ApplyOutcome::Status::committed;
          if (written) candidates_.note_version(outcome.manifest.version, voting);
          changes_.discard(
              std::make_shared<std::pair<Examined, ApplyOutcome>>(std::move(*examined), std::move(outcome)));
          done(written);
          committed(written);
        };
        host_state_.decide_version<ApplyOutcome>(std::move(write), std::move(then), std::move(refuse));
      });
  return true;
}

Proposal LongCalls::proposal(CandidateMessage message, std::shared_ptr<const Model> model,
                             const ApplyRequest& request) const {
  Proposal proposal;
  proposal.message = std::move(message);
  proposal.model = std::move(model);
  proposal.rules = candidates_.rules();
  proposal.rules.allow_restart = request.allow_restart;
  proposal.rules.require_all = request.require_all;
  proposal.dry_run = request.dry_run;
  proposal.who = request.who;
  proposal.comment = request.comment;
  return proposal;
}

ApplyOutcome LongCalls::refused(const Voting& voting) const {
  ApplyOutcome outcome;
  outcome.status = ApplyOutcome::Status::refused;
  outcome.manifest = without_entries(host_state_.manifest());
  outcome.voting = voting;
  return outcome;
}

void LongCalls::change_element(const ApiCall& call, const WriteTarget& target, nlohmann::json element,
                               std::function<void()> otherwise) {
  TryObject attempt = [target, element = std::move(element)](WorkingCopy& copy,
                                                             const std::shared_ptr<const Plans>& known) -> TriedObject {
    return {{}, tidegate::try_element(copy, target.kind, target.name, Document::from_json("config", element), known)};
  };
  change_object(call, target, std::move(attempt), std::move(otherwise), {});
}

void LongCalls::change_object(const ApiCall& call, const WriteTarget& target, TryObject attempt,
                              std::function<void()> otherwise, std::string comment) {
  if (elements_.size() >= kMaxElementChanges) return refuse_as_busy(call);
  elements_.push_back({call, target, std::move(attempt), std::move(otherwise), std::move(comment)});
  if (elements_.size() == 1) try_elements();
}

// Begins with the first element that has something to try.
void LongCalls::try_elements() {
  while (!elements_.empty() && !try_first_element()) elements_.pop_front();
}

// Returns false if the call was answered.
bool LongCalls::try_first_element() {
  const ElementChange& change = elements_.front();
  if (auto refused = check_precondition(change.call.request(), host_state_.manifest(), change.target)) {
    change.call.respond(std::move(*refused));
    return false;
  }
  const std::shared_ptr<const Model> model = host_state_.model();
  if (!model) {
    change.otherwise();
    return false;
  }
  const uint64_t base = host_state_.manifest().version;
  const auto copy = std::make_shared<std::unique_ptr<WorkingCopy>>(host_state_.take_working_copy());
  auto work = [&host_state = host_state_, manifest = host_state_.shared_manifest(), model, plans = host_state_.plans(),
               copy, why_not = why_not_, try_object = change.try_object, id = candidates_.next_id()]() -> TriedElement {
    if (*copy == nullptr) {
      FileReader files;
      Result<std::unique_ptr<Document>> document = host_state.document(*manifest, files);
      if (!document) return {};
      *copy = std::make_unique<WorkingCopy>(*std::move(document), model);
    }
    TriedElement tried;
    tried.object = try_object(**copy, plans);
    if (const auto& made = tried.object.trial.tried; made && made->model) {
      if (const auto why = why_not(*made->model)) tried.object.answer = not_on_this_host(*why);
    }
    if (const auto sent = as_sent(tried.object.trial, id, *manifest)) tried.message = message_of(*sent);
    tried.copy = std::move(*copy);
    return tried;
  };
  const bool taken = changes_.run(
      std::move(work), [this, base](std::optional<TriedElement> tried) { finish_element(base, std::move(tried)); });
  if (!taken) refuse_as_busy(change.call);
  return taken;
}

// Runs on the loop. The version in force may have changed meanwhile.
void LongCalls::finish_element(uint64_t base, std::optional<TriedElement> tried) {
  TIDEGATE_ASSERT(!elements_.empty(), "the first element is tried until this call");
  ElementChange& change = elements_.front();
  const bool moved_on = host_state_.manifest().version != base;
  if (tried && tried->copy) {
    if (moved_on) {
      changes_.discard(std::shared_ptr<WorkingCopy>(std::move(tried->copy)));
    } else {
      host_state_.keep_working_copy(base, std::move(tried->copy));
    }
  }
  if (tried && moved_on && change.attempt++ < kMaxAttempts) return try_elements();
  if (!tried) return answer_element(failed_examination());
  if (moved_on) return answer_element(stale());
  if (tried->object.answer) return answer_element(*std::move(tried->object.answer));
  const auto kept = std::make_shared<TriedElement>(*std::move(tried));
  if (!candidates_.when_free([this, base, kept] { return decide_element(base, kept); })) answer_element(crowded_out());
}

// Starts the vote on the first element change. No other change can be committed until it is decided. Returns false if
// there is no vote: the call was answered, or the change will be tried again.
bool LongCalls::decide_element(uint64_t base, const std::shared_ptr<TriedElement>& tried) {
  ElementChange& change = elements_.front();
  if (host_state_.manifest().version != base) {
    if (change.attempt++ < kMaxAttempts) {
      try_elements();
    } else {
      answer_element(stale());
    }
    return false;
  }
  ApplyRequest request = apply_request(change.call);
  if (request.comment.empty()) request.comment = change.comment;
  std::optional<ApplyOutcome> previewed = preview(host_state_.manifest(), tried->object.trial);
  if (!previewed) {
    const std::function<void()> otherwise = std::move(change.otherwise);
    elements_.pop_front();
    otherwise();
    try_elements();
    return false;
  }
  if (previewed->status != ApplyOutcome::Status::dry_run) {
    answer_element(answer_write(*previewed));
    return false;
  }
  if (auto refusal = refuse_while_provisional(request)) {
    answer_element(*std::move(refusal));
    return false;
  }
  std::shared_ptr<const Model> model = tried->object.trial.tried->model;
  const std::string digest = tried->message.digest;
  candidates_.decide(proposal(std::move(tried->message), std::move(model), request),
                     [this, tried, request, digest, previewed = *std::move(previewed)](
                         const Voting& voting, const std::function<void(bool)>& committed) {
                       const auto answer = [this, voting, committed](const ApplyOutcome& outcome) {
                         const bool done = outcome.status == ApplyOutcome::Status::committed;
                         if (done) candidates_.note_version(outcome.manifest.version, voting);
                         answer_element(answer_write(outcome));
                         committed(done);
                       };
                       if (!voting.accepted) return answer(refused(voting));
                       if (request.dry_run) return answer(voted_on(previewed, voting));
                       const auto accepted = [this, tried, previewed, request, voting] {
                         return apply_trial(host_state_, std::move(tried->object.trial), previewed, request, voting);
                       };
                       commit_accepted(request, digest, accepted, answer);
                     });
  return true;
}

// Answers the first element, and begins with the next one.
void LongCalls::answer_element(HttpResponse response) {
  elements_.front().call.respond(std::move(response));
  elements_.pop_front();
  try_elements();
}

}  // namespace tidegate
