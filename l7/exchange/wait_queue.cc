// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/wait_queue.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l7 {

WaitQueue::Joined WaitQueue::join(Waiter& waiter, uint64_t client, uint32_t most, bool picky, QueuePriority priority) {
  TIDEGATE_ASSERT(!waiter.waits(), "a request waits in one queue, once");
  waiter.client_ = client % kQueueClients;
  const Client& its = clients_[waiter.client_];
  waiter.guest_ = its.guests.first != nullptr || its.in_share >= std::max<uint32_t>(1, most / kQueueShares);
  waiter.priority_ = priority;
  waiter.picky_ = picky;
  waiter.pushed_out_ = false;
  Waiter* pushed_out = nullptr;
  if (size_ >= most) {
    pushed_out = most == 0 ? nullptr : gives_way_to(waiter);
    if (pushed_out == nullptr) return {false};
    leave(*pushed_out);
    pushed_out->pushed_out_ = true;
  }
  waiter.queue_ = this;
  waiter.number_ = arrivals_++;
  add(waiter);
  if (waiter.guest_) clients_[waiter.client_].guests.append(waiter);
  ++size_;
  return {true, pushed_out};
}

// Adds it at the end of its list.
void WaitQueue::add(Waiter& waiter) {
  list_of(waiter).append(waiter);
  if (!waiter.guest_) ++clients_[waiter.client_].in_share;
}

void WaitQueue::promote_guest(Client& client) {
  Waiter* const guest = client.guests.first;
  if (guest == nullptr) return;
  client.guests.remove(*guest);
  list_of(*guest).remove(*guest);
  guest->guest_ = false;
  add(*guest);
}

WaitQueue::Waiter* WaitQueue::next(bool for_all) const {
  const bool oldest = turns_ % kQueueTurns == kQueueTurns - 1;
  Waiter* found = nullptr;
  for (size_t list = lists_.size(); list-- > 0;) {
    Waiter* waiter = lists_[list].first;
    while (for_all && waiter != nullptr && waiter->picky_) waiter = waiter->in_order_.after;
    if (waiter == nullptr) continue;
    if (found == nullptr || waiter->number_ < found->number_) found = waiter;
    if (!oldest) break;
  }
  return found;
}

// Whose place a newcomer takes in a full queue; null: nobody's. One that is no guest has no guests of its own client
// before it.
WaitQueue::Waiter* WaitQueue::gives_way_to(const Waiter& newcomer) const {
  const auto own = static_cast<size_t>(newcomer.priority_);
  for (size_t priority = 0; priority < kPriorities; ++priority) {
    Waiter* const guest = lists_[index_of(priority, true)].last;
    if (guest != nullptr && (priority < own || !newcomer.guest_)) return guest;
  }
  for (size_t priority = 0; priority < own && !newcomer.guest_; ++priority) {
    Waiter* const other = lists_[index_of(priority, false)].last;
    if (other != nullptr) return other;
  }
  return nullptr;
}

void WaitQueue::leave(Waiter& waiter) {
  waiter.pushed_out_ = false;
  if (!waiter.waits()) return;
  WaitQueue& queue = *waiter.queue_;
  Client& client = queue.clients_[waiter.client_];
  TIDEGATE_ASSERT(queue.size_ > 0 && (waiter.guest_ || client.in_share > 0), "who leaves has been counted");
  queue.list_of(waiter).remove(waiter);
  --queue.size_;
  waiter.queue_ = nullptr;
  if (waiter.guest_) return client.guests.remove(waiter);
  --client.in_share;
  queue.promote_guest(client);
}

void WaitQueue::take_turn(Waiter& waiter) {
  if (waiter.waits()) ++waiter.queue_->turns_;
  leave(waiter);
}

}  // namespace tidegate::l7
