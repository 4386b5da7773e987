// SPDX-License-Identifier: Apache-2.0
// LongCalls: calls that read or examine whole documents. They run beside the loop: reads on one thread, changes on
// another one in the order of arrival. The loop commits and answers.
//
// Threads: the control's loop. The given functions run on a Background's thread and may only read the store.
#pragma once

#include <functional>
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
  std::function<Examined(const Manifest& base)> examine;
  std::function<void(ApplyRequest&)> adjust = {};  // sets what the call's parameters do not say; may be empty
};

class LongCalls {
 public:
  // How often a change is examined because other versions came first. Then it is refused as stale.
  static constexpr int kMaxAttempts = 5;

  LongCalls(EventLoop& loop, HostState& host_state);

  void answer(const ApiCall& call, std::function<HttpResponse()> read);
  void change(const ApiCall& call, Change change, int attempt = 1);
  // Calls `then` on the loop when the host state has a working copy, or cannot have one.
  void with_working_copy(const ApiCall& call, std::function<void()> then);

 private:
  template <class Work, class Then>
  void run(const ApiCall& call, Background& background, Work work, Then then);
  std::optional<HttpResponse> refusal(const ApiCall& call, const Change& change) const;
  void finish(const ApiCall& call, const Change& change, uint64_t base, int attempt, std::optional<Examined> examined);

  HostState& host_state_;
  Background reads_, changes_;
  Counter& busy_ = metrics().counter("tidegate_control_busy_calls_total",
                                     "Long calls refused because as many wait as may, answered 503.");
};

}  // namespace tidegate
