// SPDX-License-Identifier: Apache-2.0
// What happens when an operator takes a backend down: its requests in progress end at once, kTakenDownPerRound per
// round, and its idle connections are closed. A request that has no answer yet may go to another backend. (A plain
// drain lets all of them finish.)
#include "core/assert.h"
#include "l7/exchange/transaction.h"
#include "l7/limits.h"
#include "l7/worker.h"

namespace tidegate::l7 {

bool Transaction::uses_taken_down() const {
  return exchange_.attempts.member != nullptr &&
         exchange_.attempts.member->runtime->taken_down.load(std::memory_order_relaxed);
}

void Transaction::leave_taken_down() {
  TIDEGATE_ASSERT(!running_, "a request is taken off its backend between its steps");
  TIDEGATE_ASSERT(uses_taken_down(), "only a request that has such a backend leaves it");
  const bool unanswered = step_ == Step::connect || step_ == Step::exchange;
  if (!unanswered && exchange_.cache.fill) {
    exchange_.cache.fill.fail(cache::FillFailure::backend_failed, info(Failure::backend_taken_down).name);
    exchange_.cache.fill = cache::Fill();
  }
  running_ = true;  // the client may turn out to be gone meanwhile; then resume() only asks for another round of steps
  step_ = unanswered ? attempt_failed(Failure::backend_taken_down) : fail(Failure::backend_taken_down);
  running_ = false;
  resume();
}

// Requests may begin and end within this loop, but the list only grows: it is trimmed by a timer.
void Worker::end_taken_down() {
  const Plan& plan = plan_->plan();
  if (plan.taken_down.empty()) return;
  size_t ended = 0;
  for (size_t i = transactions_.size(); i-- > 0 && ended < kTakenDownPerRound;) {
    if (!transactions_[i]->uses_taken_down()) continue;
    transactions_[i]->leave_taken_down();
    ++ended;
  }
  for (const std::shared_ptr<BackendRuntime>& backend : plan.taken_down) backends_.close_idle(backend->id);
  if (ended == kTakenDownPerRound) loop_.post([this] { end_taken_down(); });
}

}  // namespace tidegate::l7
