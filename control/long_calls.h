// SPDX-License-Identifier: Apache-2.0
// LongCalls: calls that read or examine whole documents. They run beside the loop: reads on one thread, changes on
// another one in the order of arrival. The loop commits and answers.
//
// Threads: the control's loop. The given functions run on a Background's thread and may only read the store.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "control/apply.h"
#include "control/background.h"
#include "control/host_state.h"
#include "control/route_table.h"
#include "control/write_rules.h"
#include "core/metrics.h"

namespace tidegate {

// The result of an examination: an answer, or a candidate.
struct Examined {
  std::optional<HttpResponse> answer;
  Candidate candidate;
};

// A change of the configuration in progress.
struct Change {
  WriteTarget target;  // for the preconditions
  // True if the candidate is made from `base`, the version in force. If another version came meanwhile, it is examined
  // again.
  bool of_base = true;
  bool needs_precondition = true;
  // `known`: the plans of the last version that was judged; may be null.
  std::function<Examined(const Manifest& base, const Plans* known)> examine;
  std::function<void(ApplyRequest&)> adjust = {};  // sets what the call's parameters do not say; may be empty
};

// What came of trying one object in place of another: an answer, or a trial to be committed.
struct TriedObject {
  std::optional<HttpResponse> answer;
  Trial trial;
};
using TryObject = std::function<TriedObject(WorkingCopy& copy, const std::shared_ptr<const Plans>& known)>;

class LongCalls {
 public:
  // How often a change is examined because other versions came first. Then it is refused as stale.
  static constexpr int kMaxAttempts = 5;

  LongCalls(EventLoop& loop, HostState& host_state);

  void answer(const ApiCall& call, std::function<HttpResponse()> read);
  void change(const ApiCall& call, Change change, int attempt = 1);
  // Puts one element in place of another. Such changes are tried beside the loop, one after the other, each on the
  // version that the one before made. If one element is not enough, `otherwise` is called on the loop.
  void change_element(const ApiCall& call, const WriteTarget& target, nlohmann::json element,
                      std::function<void()> otherwise);
  // The same for whatever `attempt` tries, which may be any one object. It runs beside the loop and may be called
  // again. `comment` is kept with the version if the call has none.
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
  // What came of a trial, with the copy that it used.
  struct TriedElement {
    std::unique_ptr<WorkingCopy> copy;
    TriedObject object;
  };

  void try_elements();
  bool try_first_element();
  void finish_element(uint64_t base, std::optional<TriedElement> tried);
  void refuse_as_busy(const ApiCall& call);
  template <class Work, class Then>
  void run(const ApiCall& call, Background& background, Work work, Then then);
  std::optional<HttpResponse> refusal(const ApiCall& call, const Change& change) const;
  void finish(const ApiCall& call, const Change& change, uint64_t base, int attempt, std::optional<Examined> examined);

  HostState& host_state_;
  Background reads_, changes_;
  std::deque<ElementChange> elements_;  // the first is being tried, the others wait
  Counter& busy_ = metrics().counter("tidegate_control_busy_calls_total",
                                     "Long calls refused because as many wait as may, answered 503.");
};

}  // namespace tidegate
