// SPDX-License-Identifier: Apache-2.0
// ReaderPool: a few threads that read LMDB for the event loops, because a read may wait for the disk.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "cache/disk/store.h"
#include "core/mutex.h"

namespace tidegate::cache {

class ReaderPool {
 public:
  // Runs with its own transaction. Copy out and return soon, because a long transaction stops page reuse. nullptr: no
  // transaction could be had.
  using Job = std::function<void(const lmdb::Txn*)>;

  ReaderPool(const Store& store, unsigned threads);
  ~ReaderPool() { stop(); }
  void stop();  // ends the threads; jobs that have not begun are dropped

  // False when kWaitingReads jobs wait already; the lookup then counts as a miss. `must`: for a body that is being
  // sent.
  bool submit(Job job, bool must = false);
  // Another process writes from now on. For `for_ms` every read sees what is there now, so that a body that is being
  // sent keeps its chunks; LMDB keeps their pages as long. Returns when every thread has its snapshot. The first call
  // counts.
  void pin(uint64_t for_ms);
  // The other process does not come: reads see what is there at their time again.
  void unpin();
  // How long the longest read under way has held its transaction.
  uint64_t oldest_read_age_ns() const;
  const Store& store() const { return store_; }

 private:
  enum class Pin : uint8_t { none, held, over };
  struct Thread {
    // For the thread alone.
    Pin pin = Pin::none;
    uint64_t pinned = 0;  // the pin that it has, or had
    std::thread thread;
    std::atomic<uint64_t> reading_since_ns{0};  // 0: idle
  };
  void run(Thread& self);
  enum class Turn : uint8_t { work, pin, unpin, end };
  Turn wait_for_turn(const Thread& self, Job& job);
  void take_pin(Thread& self, std::optional<lmdb::Txn>& txn);
  bool begin(std::optional<lmdb::Txn>& txn) const;

  const Store& store_;
  Mutex mutex_;
  MutexCondition wake_;
  std::deque<Job> jobs_ TIDEGATE_GUARDED_BY(mutex_);
  bool stop_ TIDEGATE_GUARDED_BY(mutex_) = false;
  MutexCondition pinned_;
  std::chrono::steady_clock::time_point pin_until_ TIDEGATE_GUARDED_BY(mutex_);  // 0: nothing is pinned
  uint64_t pin_number_ TIDEGATE_GUARDED_BY(mutex_) = 0;                          // of the last pin
  size_t unpinned_ TIDEGATE_GUARDED_BY(mutex_) = 0;                              // threads that have to, and have not
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace tidegate::cache
