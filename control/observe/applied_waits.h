// SPDX-License-Identifier: Apache-2.0
// AppliedWaits: calls that wait until the edge has applied something, has refused it, or until their time is over.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "conf/state_store.h"
#include "control/api/route_table.h"
#include "control/observe/fleet.h"
#include "core/event_loop.h"

namespace tidegate {

constexpr uint64_t kDefaultWaitMs = 10'000;
constexpr uint64_t kMaxWaitMs = 60'000;

class AppliedWaits {
 public:
  AppliedWaits(EventLoop& loop, Fleet& fleet);
  ~AppliedWaits();

  // Answers the call with `answer` and {"converged","waited_ms","missing":[...],"unreachable":[...]}. It names planes
  // that cannot be reached and does not wait for them. `timeout_ms` is at most kMaxWaitMs.
  void answer_when_applied(const ApiCall& call, const StateHead& wanted, uint64_t timeout_ms, nlohmann::json answer);

 private:
  class Wait;
  EventLoop& loop_;
  Fleet& fleet_;
  std::set<std::shared_ptr<Wait>> waits_;
};

}  // namespace tidegate
