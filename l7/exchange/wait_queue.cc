// SPDX-License-Identifier: Apache-2.0
#include "l7/exchange/wait_queue.h"

#include <algorithm>

#include "core/assert.h"

namespace tidegate::l7 {

WaitQueue::Joined WaitQueue::join(Waiter& waiter, uint64_t client, uint32_t most, bool picky, QueuePriority priority) {
  TIDEGATE_ASSERT(!waiter.waits(), "a request waits in one queue, once");
  waiter.pushed_out_ = false;
  if (most == 0) return {false};
  waiter.client_ = client % kQueueClients;
  waiter.priority_ = priority;
  waiter.picky_ = picky;
  const Client& its = clients_[waiter.client_];
  const bool beyond_share = first_guest(its) != nullptr || its.in_share >= std::max<uint32_t>(1, most / kQueueShares);
  Waiter* const demoted = beyond_share ? last_below(its, priority) : nullptr;
  if (demoted != nullptr) make_guest(*demoted);
  waiter.guest_ = beyond_share && demoted == nullptr;
  Waiter* pushed_out = nullptr;
  if (size_ >= most) {
    pushed_out = gives_way_to(waiter);
    if (pushed_out == nullptr) return {false};
    leave(*pushed_out);
    pushed_out->pushed_out_ = true;
  }
  waiter.queue_ = this;
  waiter.number_ = arrivals_++;
  add(waiter);
  ++size_;
  return {true, pushed_out};
}

// Adds it at the end of its lists.
void WaitQueue::add(Waiter& waiter) {
  list_of(waiter).append(waiter);
  client_list_of(waiter).append(waiter);
  if (!waiter.guest_) ++clients_[waiter.client_].in_share;
}

void WaitQueue::remove(Waiter& waiter) {
  list_of(waiter).remove(waiter);
  client_list_of(waiter).remove(waiter);
  if (!waiter.guest_) --clients_[waiter.client_].in_share;
}

// The last one of the lowest priority in the client's share, if that is lower than `priority`.
WaitQueue::Waiter* WaitQueue::last_below(const Client& client, QueuePriority priority) {
  for (size_t lower = 0; lower < static_cast<size_t>(priority); ++lower) {
    if (client.share[lower].last != nullptr) return client.share[lower].last;
  }
  return nullptr;
}

WaitQueue::Waiter* WaitQueue::first_guest(const Client& client) {
  for (size_t priority = kPriorities; priority-- > 0;) {
    if (client.guests[priority].first != nullptr) return client.guests[priority].first;
  }
  return nullptr;
}

// The waiter goes before the other guests of its client and its priority, because it came before them.
void WaitQueue::make_guest(Waiter& waiter) {
  remove(waiter);
  waiter.guest_ = true;
  Waiter* const next = client_list_of(waiter).first;
  list_of(waiter).insert(waiter, next);
  client_list_of(waiter).insert(waiter, next);
}

void WaitQueue::promote_guest(const Client& client) {
  Waiter* const guest = first_guest(client);
  if (guest == nullptr) return;
  remove(*guest);
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

// The waiter whose place a newcomer takes in a full queue. Null: the newcomer gets no place.
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
  const Client& client = queue.clients_[waiter.client_];
  TIDEGATE_ASSERT(queue.size_ > 0 && (waiter.guest_ || client.in_share > 0), "who leaves has been counted");
  queue.remove(waiter);
  --queue.size_;
  waiter.queue_ = nullptr;
  if (!waiter.guest_) queue.promote_guest(client);
}

void WaitQueue::take_turn(Waiter& waiter) {
  if (waiter.waits()) ++waiter.queue_->turns_;
  leave(waiter);
}

}  // namespace tidegate::l7
