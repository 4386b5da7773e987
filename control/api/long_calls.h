// SPDX-License-Identifier: Apache-2.0
// LongCalls: calls that read or examine whole documents. They run outside of the loop: reads on one thread, changes on
// another thread in the order of arrival. Then the planes vote (Candidates), and the loop commits and answers.
//
// Threads: the control's loop. The given functions run on a Background's thread and may only read the store.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "conf/model.h"
#include "control/api/background.h"
#include "control/api/route_table.h"
#include "control/api/write_rules.h"
#include "control/apply.h"
#include "control/host_state.h"
#include "control/vote/candidates.h"
#include "control/vote/provisional_versions.h"
#include "core/metrics.h"

namespace tidegate {

// The result of an examination: an answer, or a candidate.
struct Examined {
  std::optional<HttpResponse> answer;
  Candidate candidate;
  CandidateMessage message = {};  // derived from the base, if the candidate is valid
  ApplyOutcome previewed = {};    // the preview on that base
};

// A change of the configuration in progress.
struct Change {
  WriteTarget target;  // target of the preconditions
  // True if the candidate is derived from `base`, the version in force. If another version comes meanwhile, it is
  // examined again.
  bool of_base = true;
  bool needs_precondition = true;
  // `known`: the plans of the last examined version; may be null.
  std::function<Examined(const Manifest& base, const Plans* known)> examine;
  std::function<void(ApplyRequest&)> adjust = {};  // sets values that are not in the call's parameters; may be empty
};

// The result of trying a new content of one object: an answer, or a trial to commit.
struct TriedObject {
  std::optional<HttpResponse> answer;
  Trial trial;
};
using TryObject = std::function<TriedObject(WorkingCopy& copy, const std::shared_ptr<const Plans>& known)>;

class LongCalls {
 public:
  // A change is examined again if another version was committed first. After this many attempts it is refused as stale.
  static constexpr int kMaxAttempts = 5;
  // An answer that names more changes, faults or elements than this is written outside of the loop, because it takes
  // milliseconds.
  static constexpr size_t kElementsAnsweredAtOnce = 500;

  LongCalls(EventLoop& loop, HostState& host_state, Candidates& candidates, ProvisionalVersions& provisionals);

  // `why` returns the reason if this host cannot do what a candidate needs, and nothing if it can. The candidate's
  // content alone does not decide this. It is called outside of the loop. Call this before the first change.
  void refuse_candidates(std::function<std::optional<std::string>(const Model&)> why) { why_not_ = std::move(why); }
  void answer(const ApiCall& call, std::function<HttpResponse()> read);
  // Answers a read that names this many `elements`. A small answer is written at once. A large one is written outside
  // of the loop, if a job is free.
  void answer_list(const ApiCall& call, size_t elements, std::function<HttpResponse()> read);
  // Reads the manifest of a version outside of the loop, and calls `then` on the loop. Answers 404 if there is none.
  void with_version(const ApiCall& call, uint64_t number, std::function<void(std::shared_ptr<const Manifest>)> then);
  // Commits the content of version `provisional.back_to` as a new version. The planes prepare it, but none can refuse
  // it. `done` is called on the loop and says whether it was committed.
  void revert(const ProvisionalVersion& provisional, std::function<void(bool)> done);
  void change(const ApiCall& call, Change change, int attempt = 1);
  // Replaces one element. Changes of elements are tried outside of the loop, one at a time, each on the result of the
  // previous one. If replacing one element is not enough, `otherwise` is called on the loop.
  void change_element(const ApiCall& call, const WriteTarget& target, nlohmann::json element,
                      std::function<void()> otherwise);
  // Changes any one object, by `attempt`. `attempt` runs outside of the loop and may be called again. `comment` is
  // stored with the version if the call has none.
  void change_object(const ApiCall& call, const WriteTarget& target, TryObject attempt, std::function<void()> otherwise,
                     std::string comment);

 private:
  struct ElementChange {
    ApiCall call;
    WriteTarget target;
    TryObject try_object;
    std::function<void()> otherwise;
    std::string comment;
    int attempt = 1;
  };
  // The result of a trial, with the copy that it used.
  struct TriedElement {
    std::unique_ptr<WorkingCopy> copy;
    TriedObject object;
    CandidateMessage message;
  };

  void try_elements();
  bool try_first_element();
  void finish_element(uint64_t base, std::optional<TriedElement> tried);
  bool decide_element(uint64_t base, const std::shared_ptr<TriedElement>& tried);
  void answer_element(HttpResponse response);
  void refuse_as_busy(const ApiCall& call);
  void answer_change(const ApiCall& call, ApplyOutcome outcome);
  template <class Work, class Then>
  void run(const ApiCall& call, Background& background, Work work, Then then);
  std::optional<HttpResponse> refusal(const ApiCall& call, const Change& change) const;
  void finish(const ApiCall& call, const Change& change, uint64_t base, int attempt, std::optional<Examined> examined);
  bool decide(const ApiCall& call, const Change& change, uint64_t base, int attempt,
              const std::shared_ptr<Examined>& examined);
  Proposal proposal(CandidateMessage message, std::shared_ptr<const Model> model, const ApplyRequest& request) const;
  ApplyOutcome refused(const Voting& voting) const;
  std::optional<HttpResponse> refuse_while_provisional(const ApplyRequest& request) const;
  // Commits the accepted candidate, as a provisional version if the request says so. Calls `done` when that is decided.
  void commit_accepted(const ApplyRequest& request, const std::string& digest, std::function<ApplyOutcome()> commit,
                       std::function<void(ApplyOutcome)> done);
  bool decide_revert(const ProvisionalVersion& provisional, const std::shared_ptr<Examined>& examined,
                     const std::function<void(bool)>& done);

  std::function<std::optional<std::string>(const Model&)> why_not_ = [](const Model&) { return std::nullopt; };
  HostState& host_state_;
  Candidates& candidates_;
  ProvisionalVersions& provisionals_;
  Background reads_, changes_;
  std::deque<ElementChange> elements_;  // the first is being tried, the others wait
  Counter& busy_ = metrics().counter("tidegate_control_busy_calls_total",
                                     "Long calls refused because as many wait as may, answered 503.");
};

}  // namespace tidegate
