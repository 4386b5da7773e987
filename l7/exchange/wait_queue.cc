// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/wait_queue.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l7 {

WaitQueue::Joined WaitQueue::join(Waiter& waiter, uint64_t client, uint32_t most, bool picky, QueuePriority priority) {
  TIDEGATE_ASSERT(!waiter.waits(), "a request waits in one queue, once");
  const size_t place = client % kQueueClients;
  const bool has_its_share = of_client_[place] >= std::max<uint32_t>(1, most / kQueueShares);
  if (has_its_share && size_ >= most / 2) return {false};
  Waiter* pushed_out = nullptr;
  if (size_ >= most) {
    pushed_out = most == 0 ? nullptr : last_below(priority);
    if (pushed_out == nullptr) return {false};
    leave(*pushed_out);
    pushed_out->pushed_out_ = true;
  }
  waiter.queue_ = this;
  waiter.number_ = arrivals_++;
  waiter.client_ = place;
  waiter.priority_ = priority;
  waiter.picky_ = picky;
  waiter.pushed_out_ = false;
  List& list = list_of(waiter);
  waiter.before_ = list.last;
  waiter.after_ = nullptr;
  (list.last != nullptr ? list.last->after_ : list.first) = &waiter;
  list.last = &waiter;
  ++size_;
  ++of_client_[place];
  return {true, pushed_out};
}

WaitQueue::Waiter* WaitQueue::next(bool for_all) const {
  const bool oldest = turns_ % kQueueTurns == kQueueTurns - 1;
  Waiter* found = nullptr;
  for (size_t priority = kPriorities; priority-- > 0;) {
    Waiter* waiter = lists_[priority].first;
    while (for_all && waiter != nullptr && waiter->picky_) waiter = waiter->after_;
    if (waiter == nullptr) continue;
    if (found == nullptr || waiter->number_ < found->number_) found = waiter;
    if (!oldest) break;
  }
  return found;
}

WaitQueue::Waiter* WaitQueue::last_below(QueuePriority priority) const {
  for (size_t lower = 0; lower < static_cast<size_t>(priority); ++lower) {
    if (lists_[lower].last != nullptr) return lists_[lower].last;
  }
  return nullptr;
}

void WaitQueue::leave(Waiter& waiter) {
  waiter.pushed_out_ = false;
  if (!waiter.waits()) return;
  WaitQueue& queue = *waiter.queue_;
  TIDEGATE_ASSERT(queue.size_ > 0 && queue.of_client_[waiter.client_] > 0, "who leaves has been counted");
  List& list = queue.list_of(waiter);
  (waiter.before_ != nullptr ? waiter.before_->after_ : list.first) = waiter.after_;
  (waiter.after_ != nullptr ? waiter.after_->before_ : list.last) = waiter.before_;
  --queue.size_;
  --queue.of_client_[waiter.client_];
  waiter.queue_ = nullptr;
}

void WaitQueue::take_turn(Waiter& waiter) {
  if (waiter.waits()) ++waiter.queue_->turns_;
  leave(waiter);
}

}  // namespace tidegate::l7
