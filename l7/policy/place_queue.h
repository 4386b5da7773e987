// SPDX-License-Identifier: Apache-2.0
// PlaceQueue: requests that wait for a place of a concurrency policy. Whoever frees a place gives it to the first one
// that waits for the same count, so nobody who comes later overtakes. A place that was given and is not used (its
// client has left) must be freed again by the waiter's owner.
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

// Takes a place of `most`. False: there is none.
bool take_place(std::atomic<uint64_t>& count, uint64_t most);
// A count that was forgotten because its table was full may be 0 already, or another key's.
void give_place_back(std::atomic<uint64_t>& count);

class PlaceQueue final : public Runtime {
 public:
  using Count = std::atomic<uint64_t>;
  class Waiter {
   public:
    Waiter(EventLoop& loop, std::function<void()> wake) : loop_(&loop), wake_(std::move(wake)) {}
    // It has a place, which counts already.
    bool granted() const { return granted_.load(std::memory_order_acquire); }

   private:
    friend class PlaceQueue;
    EventLoop* const loop_;
    const std::function<void()> wake_;  // called on the loop's thread alone
    bool left_ = false;                 // the loop's thread
    std::atomic<bool> granted_{false};
  };
  using WaiterPtr = std::shared_ptr<Waiter>;

  // At the end of the queue of `count`. False: `longest` requests wait already, for whatever count.
  bool join(Count& count, const WaiterPtr& waiter, uint64_t longest);
  // On the waiter's thread: it is not woken any more. True: it had a place.
  bool leave(Count& count, const WaiterPtr& waiter);
  // Gives the free places of `count` to those who wait. To be called after a place was freed, and after join().
  void serve(Count& count, uint64_t most);
  // Whether somebody waits for it. Costs no lock while nobody waits for any.
  bool awaited(const Count& count) const;
  uint64_t length() const { return length_.load(std::memory_order_relaxed); }

 private:
  mutable Mutex mutex_;
  std::map<const Count*, std::deque<WaiterPtr>> waiting_ TIDEGATE_GUARDED_BY(mutex_);
  std::atomic<uint64_t> length_{0};
};

}  // namespace tidegate::l7::policy
