// SPDX-License-Identifier: Apache-2.0
// PlaceQueue: requests that wait for a place of a concurrency policy. A request that frees a place gives it to the
// first one that waits for the same count, so later ones cannot overtake. If a given place is not used (its client has
// left), the waiter's owner must free it again.
//
// Threads: any. A waiter is woken on the thread of its own loop.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>

#include "core/event_loop.h"
#include "core/mutex.h"
#include "l7/policy/policy.h"

namespace tidegate::l7::policy {

// Takes one of `most` places. Returns false if there is none.
bool take_place(std::atomic<uint64_t>& count, uint64_t most);
// If the table was full and the count was forgotten, the count may be 0 already, or belong to another key.
void give_place_back(std::atomic<uint64_t>& count);

class PlaceQueue final : public Runtime {
 public:
  using Count = std::atomic<uint64_t>;
  class Waiter {
   public:
    Waiter(EventLoop& loop, std::function<void()> wake) : loop_(&loop), wake_(std::move(wake)) {}
    // True if it has a place, which counts already.
    bool granted() const { return granted_.load(std::memory_order_acquire); }

   private:
    friend class PlaceQueue;
    EventLoop* const loop_;
    const std::function<void()> wake_;  // called only on the loop's thread
    bool left_ = false;                 // belongs to the loop's thread
    std::atomic<bool> granted_{false};
  };
  using WaiterPtr = std::shared_ptr<Waiter>;

  // Adds the waiter at the end of the queue of `count`. Returns false if `longest` requests wait already, for any
  // count.
  bool join(Count& count, const WaiterPtr& waiter, uint64_t longest);
  // On the waiter's thread: it is not woken any more. Returns true if it had a place.
  bool leave(Count& count, const WaiterPtr& waiter);
  // Gives free places of `count` to waiters. Call it after a place was freed, and after join().
  void serve(Count& count, uint64_t most);
  // True if a request waits for a place in this count. Takes no lock while the queue is empty.
  bool awaited(const Count& count) const;
  uint64_t length() const { return length_.load(std::memory_order_relaxed); }

 private:
  mutable Mutex mutex_;
  std::map<const Count*, std::deque<WaiterPtr>> waiting_ TIDEGATE_GUARDED_BY(mutex_);
  std::atomic<uint64_t> length_{0};
};

}  // namespace tidegate::l7::policy
