// SPDX-License-Identifier: Apache-2.0
// ReaderPool: a few threads that read LMDB for the event loops, because a read may wait for the disk.
#pragma once

#include <atomic>
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
  // How long the longest read under way has held its transaction.
  uint64_t oldest_read_age_ns() const;
  const Store& store() const { return store_; }

 private:
  struct Thread {
    std::thread thread;
    std::atomic<uint64_t> reading_since_ns{0};  // 0: idle
  };
  void run(Thread& self);
  bool begin(std::optional<lmdb::Txn>& txn) const;

  const Store& store_;
  Mutex mutex_;
  MutexCondition wake_;
  std::deque<Job> jobs_ TIDEGATE_GUARDED_BY(mutex_);
  bool stop_ TIDEGATE_GUARDED_BY(mutex_) = false;
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace tidegate::cache
