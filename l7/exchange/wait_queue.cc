// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/wait_queue.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l7 {

bool WaitQueue::join(Waiter& waiter, uint64_t client, uint32_t most, bool picky) {
  TIDEGATE_ASSERT(!waiter.waits(), "a request waits in one queue, once");
  const size_t place = client % kQueueClients;
  const bool has_its_share = of_client_[place] >= std::max<uint32_t>(1, most / kQueueShares);
  if (size_ >= most || (has_its_share && size_ >= most / 2)) return false;
  waiter.queue_ = this;
  waiter.client_ = place;
  waiter.picky_ = picky;
  waiter.before_ = last_;
  waiter.after_ = nullptr;
  (last_ != nullptr ? last_->after_ : first_) = &waiter;
  last_ = &waiter;
  ++size_;
  ++of_client_[place];
  return true;
}

WaitQueue::Waiter* WaitQueue::first_for_all() const {
  Waiter* waiter = first_;
  while (waiter != nullptr && waiter->picky_) waiter = waiter->after_;
  return waiter;
}

void WaitQueue::leave(Waiter& waiter) {
  if (!waiter.waits()) return;
  WaitQueue& queue = *waiter.queue_;
  TIDEGATE_ASSERT(queue.size_ > 0 && queue.of_client_[waiter.client_] > 0, "who leaves has been counted");
  (waiter.before_ != nullptr ? waiter.before_->after_ : queue.first_) = waiter.after_;
  (waiter.after_ != nullptr ? waiter.after_->before_ : queue.last_) = waiter.before_;
  --queue.size_;
  --queue.of_client_[waiter.client_];
  waiter.queue_ = nullptr;
}

}  // namespace tidegate::l7
