// SPDX-License-Identifier: Apache-2.0
// ReaderPool: the few threads that read LMDB for the event loops, since a read may wait for the disk.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "cache/store.h"

namespace tidegate::cache {

class ReaderPool {
 public:
  // Runs with a transaction of its own: copy out and return, so that no page is held back for long. nullptr: none could
  // be had.
  using Job = std::function<void(const lmdb::Txn*)>;

  ReaderPool(const Store& store, unsigned threads);
  ~ReaderPool() { stop(); }
  void stop();  // ends the threads; jobs not begun are dropped

  // False when kMaxQueued jobs wait already (a lookup then counts as a miss); `must` is for a body that is already
  // being sent.
  bool submit(Job job, bool must = false);
  // How long the longest read under way has held its transaction.
  uint64_t oldest_read_age_ns() const;
  const Store& store() const { return store_; }

  static constexpr size_t kMaxQueued = 4096;

 private:
  struct Thread {
    std::thread thread;
    std::atomic<uint64_t> reading_since_ns{0};  // 0: idle
  };
  void run(Thread& self);

  const Store& store_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;
  bool stop_ = false;
  std::vector<std::unique_ptr<Thread>> threads_;
};

}  // namespace tidegate::cache
