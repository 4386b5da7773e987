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
  if (background.run(std::move(work), std::move(then))) return;
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
  auto work = [examine = change.examine, manifest = host_state_.manifest(), dry_run = request.dry_run,
               of_base = change.of_base]() {
    Examined examined = examine(manifest);
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

void LongCalls::with_working_copy(const ApiCall& call, std::function<void()> then) {
  const std::shared_ptr<const Model> model = host_state_.model();
  if (host_state_.working_copy() != nullptr || !model) return then();
  const uint64_t version = host_state_.manifest().version;
  run(
      call, changes_,
      [&host_state = host_state_, manifest = host_state_.manifest(), model]() -> std::unique_ptr<WorkingCopy> {
        FileReader files;
        Result<std::unique_ptr<Document>> document = host_state.document(manifest, files);
        return document ? std::make_unique<WorkingCopy>(*std::move(document), model) : nullptr;
      },
      [this, version, then = std::move(then)](std::optional<std::unique_ptr<WorkingCopy>> copy) {
        if (copy && *copy && host_state_.manifest().version == version)
          host_state_.keep_working_copy(version, *std::move(copy));
        then();
      });
}

}  // namespace tidegate
