// SPDX-License-Identifier: Apache-2.0
#include "control/long_calls.h"

#include <utility>

#include "control/limits.h"
#include "control/problem.h"
#include "core/assert.h"

namespace tidegate {

namespace {

HttpResponse failed_examination() {
  return problem(500, "failed", "the call could not be worked on; the log of the control says why");
}

}  // namespace

LongCalls::LongCalls(EventLoop& loop, HostState& host_state)
    : host_state_(host_state),
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
  // An answer that depends on nothing else is written there too: it names every change, or every fault, of a document.
  auto work = [examine = change.examine, manifest = host_state_.manifest(), plans = host_state_.plans(),
               dry_run = request.dry_run, of_base = change.of_base]() {
    Examined examined = examine(manifest, plans.get());
    if (examined.answer) return examined;
    if (dry_run || (!examined.candidate.model && !of_base)) {
      examined.answer = answer_write(preview(manifest, examined.candidate));
      examined.candidate = {};  // freed here
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
  if (auto refused = refusal(call, change)) return call.respond(std::move(*refused));
  if (change.of_base && host_state_.manifest().version != base) {
    if (attempt < kMaxAttempts) return this->change(call, change, attempt + 1);
    return call.respond(problem(412, "stale", "other changes came first, again and again; try again"));
  }
  const auto candidate = std::make_shared<Candidate>(std::move(examined->candidate));
  ApplyRequest request = apply_request(call);
  if (change.adjust) change.adjust(request);
  call.respond(answer_write(apply(host_state_, *candidate, request)));
  changes_.discard(candidate);
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

// Begins with the first one that has something to try.
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
  auto work = [&host_state = host_state_, manifest = host_state_.manifest(), model, plans = host_state_.plans(), copy,
               try_object = change.try_object]() -> TriedElement {
    if (*copy == nullptr) {
      FileReader files;
      Result<std::unique_ptr<Document>> document = host_state.document(manifest, files);
      if (!document) return {};
      *copy = std::make_unique<WorkingCopy>(*std::move(document), model);
    }
    TriedObject object = try_object(**copy, plans);
    return {std::move(*copy), std::move(object)};
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
  if (!tried) {
    change.call.respond(failed_examination());
  } else if (moved_on) {
    change.call.respond(problem(412, "stale", "other changes came first, again and again; try again"));
  } else if (tried->object.answer) {
    change.call.respond(*std::move(tried->object.answer));
  } else {
    ApplyRequest request = apply_request(change.call);
    if (request.comment.empty()) request.comment = change.comment;
    const std::optional<ApplyOutcome> outcome = apply_trial(host_state_, std::move(tried->object.trial), request);
    if (outcome) {
      change.call.respond(answer_write(*outcome));
    } else {
      change.otherwise();
    }
  }
  elements_.pop_front();
  try_elements();
}

}  // namespace tidegate
