// SPDX-License-Identifier: Apache-2.0
#include "l7/policy/place_queue.h"

#include <utility>

namespace tidegate::l7::policy {

bool take_place(std::atomic<uint64_t>& count, uint64_t most) {
  uint64_t before = count.load();
  do {
    if (before >= most) return false;
  } while (!count.compare_exchange_weak(before, before + 1));
  return true;
}

void give_place_back(std::atomic<uint64_t>& count) {
  uint64_t before = count.load();
  while (before > 0 && !count.compare_exchange_weak(before, before - 1)) {
  }
}

bool PlaceQueue::join(Count& count, const WaiterPtr& waiter, uint64_t longest) {
  const MutexLock lock(mutex_);
  if (length_.load() >= longest) return false;
  waiting_[&count].push_back(waiter);
  length_.fetch_add(1);
  return true;
}

bool PlaceQueue::leave(Count& count, const WaiterPtr& waiter) {
  waiter->left_ = true;
  const MutexLock lock(mutex_);
  if (waiter->granted()) return true;
  const auto queue = waiting_.find(&count);
  if (queue != waiting_.end() && std::erase(queue->second, waiter) > 0) {
    length_.fetch_sub(1);
    if (queue->second.empty()) waiting_.erase(queue);
  }
  return false;
}

// A thread that frees a place decrements the count and then reads the length of the queue. A waiter increments the
// length and then reads the count. All of these are in one order (seq_cst), so at least one of the two sees the other.
void PlaceQueue::serve(Count& count, uint64_t most) {
  if (length_.load() == 0) return;
  const MutexLock lock(mutex_);
  const auto queue = waiting_.find(&count);
  if (queue == waiting_.end()) return;
  while (!queue->second.empty() && take_place(count, most)) {
    const WaiterPtr waiter = std::move(queue->second.front());
    queue->second.pop_front();
    length_.fetch_sub(1);
    waiter->granted_.store(true, std::memory_order_release);
    // Inside the lock, because the waiter's loop may end after leave().
    waiter->loop_->post([waiter] {
      if (!waiter->left_) waiter->wake_();
    });
  }
  if (queue->second.empty()) waiting_.erase(queue);
}

bool PlaceQueue::awaited(const Count& count) const {
  if (length_.load() == 0) return false;
  const MutexLock lock(mutex_);
  return waiting_.count(&count) != 0;
}

}  // namespace tidegate::l7::policy
