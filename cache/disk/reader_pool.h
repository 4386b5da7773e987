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
  // Runs with a transaction of its own. It must copy the data and return soon, because a long transaction stops page
  // reuse. nullptr: no transaction could be opened.
  using Job = std::function<void(const lmdb::Txn*)>;

  ReaderPool(const Store& store, unsigned threads);
  ~ReaderPool() { stop(); }
  void stop();  // ends the threads; jobs that have not begun are dropped

  // Returns false if kWaitingReads jobs wait already. Then the lookup counts as a miss. `must`: for a body that is
  // being sent.
  bool submit(Job job, bool must = false);
  // Call it when another process begins to write. For `for_ms` every read uses a snapshot of this moment. So a body
  // that is being sent keeps its chunks: LMDB keeps the pages of a snapshot. Returns when every thread has its
  // snapshot. Only the first call counts.
  void pin(uint64_t for_ms);
  // The other process does not come: each read takes the latest snapshot again.
  void unpin();
  // The longest time for which a read in progress has held its transaction.
  uint64_t oldest_read_age_ns() const;
  const Store& store() const { return store_; }

 private:
  enum class Pin : uint8_t { none, held, over };
  struct Thread {
    // Used only by the thread itself.
    Pin pin = Pin::none;
    uint64_t pinned = 0;  // number of the pin that it has, or had
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
  uint64_t pin_number_ TIDEGATE_GUARDED_BY(mutex_) = 0;                          // number of the last pin
  // threads that must take the pinned snapshot and have not yet
  size_t unpinned_ TIDEGATE_GUARDED_BY(mutex_) = 0;
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace tidegate::cache
