// SPDX-License-Identifier: Apache-2.0
// LongCalls: calls that read or examine whole documents, done beside the loop: reads on one thread, changes on another
// in the order of their coming. What they find is answered, and committed, on the loop.
//
// Threads: the control's loop; the functions given run on a Background's thread and touch the store alone.
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

// What an examination makes of a call: an answer at once, or a candidate.
struct Examined {
  std::optional<HttpResponse> answer;
  Candidate candidate;
};

// A change of the configuration on its way.
struct Change {
  WriteTarget target;  // for the preconditions
  // The candidate is made of `base`, the version in force: where another one came meanwhile, it is examined again.
  bool of_base = true;
  bool needs_precondition = true;
  std::function<Examined(const Manifest& base)> examine;
  std::function<void(ApplyRequest&)> adjust = {};  // what the call's parameters do not say; may be empty
};

class LongCalls {
 public:
  // How often a change is examined anew because another one came first; then it is refused as stale.
  static constexpr int kMaxAttempts = 5;

  LongCalls(EventLoop& loop, HostState& host_state);

  void answer(const ApiCall& call, std::function<HttpResponse()> read);
  void change(const ApiCall& call, Change change, int attempt = 1);
  // Calls `then` on the loop once the host state has a working copy, or cannot have one.
  void with_working_copy(const ApiCall& call, std::function<void()> then);

 private:
  template <class Work, class Then>
  void run(const ApiCall& call, Background& background, Work work, Then then);
  std::optional<HttpResponse> refusal(const ApiCall& call, const Change& change) const;
  void conclude(const ApiCall& call, const Change& change, uint64_t base, int attempt,
                std::optional<Examined> examined);

  HostState& host_state_;
  Background reads_, changes_;
  Counter& busy_ = metrics().counter("tidegate_control_busy_calls_total",
                                     "Long calls refused because as many wait as may, answered 503.");
};

}  // namespace tidegate
