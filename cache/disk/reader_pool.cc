// SPDX-License-Identifier: Apache-2.0
#include "cache/disk/reader_pool.h"

#include <algorithm>

#include "cache/limits.h"
#include "core/clock.h"
#include "core/log.h"
#include "core/thread.h"

namespace tidegate::cache {

ReaderPool::ReaderPool(const Store& store, unsigned threads) : store_(store) {
  for (unsigned i = 0; i < std::max(1U, threads); ++i) threads_.push_back(std::make_unique<Thread>());
  for (auto& thread : threads_) thread->thread = start_thread("cache-reader", [this, &self = *thread] { run(self); });
}

void ReaderPool::stop() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  pinned_.notify_all();
  for (auto& thread : threads_) {
    if (thread->thread.joinable()) thread->thread.join();
  }
}

bool ReaderPool::submit(Job job, bool must) {
  {
    const MutexLock lock(mutex_);
    if (stop_ || (!must && jobs_.size() >= kWaitingReads)) return false;
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return true;
}

uint64_t ReaderPool::oldest_read_age_ns() const {
  const uint64_t now = monotonic_ns();
  uint64_t oldest = 0;
  for (const auto& thread : threads_) {
    const uint64_t since = thread->reading_since_ns.load(std::memory_order_relaxed);
    if (since != 0 && since < now) oldest = std::max(oldest, now - since);
  }
  return oldest;
}

// Begins a transaction on the latest snapshot.
bool ReaderPool::begin(std::optional<lmdb::Txn>& txn) const {
  if (txn) return txn->renew().has_value();
  auto begun = lmdb::Txn::begin(store_.env(), lmdb::Access::read);
  if (!begun) {
    log_error("cache: reader thread: {}", begun.error().message);
    return false;
  }
  txn.emplace(std::move(*begun));
  return true;
}

void ReaderPool::pin(uint64_t for_ms) {
  MutexLock lock(mutex_);
  if (pin_until_ != std::chrono::steady_clock::time_point()) return;
  pin_until_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(for_ms);
  ++pin_number_;
  unpinned_ = threads_.size();
  wake_.notify_all();
  while (unpinned_ > 0 && !stop_) pinned_.wait(lock);
}

void ReaderPool::unpin() {
  const MutexLock lock(mutex_);
  pin_until_ = {};
  wake_.notify_all();
}

void ReaderPool::take_pin(Thread& self, std::optional<lmdb::Txn>& txn) {
  self.pin = begin(txn) ? Pin::held : Pin::over;
  const MutexLock lock(mutex_);
  self.pinned = pin_number_;
  if (--unpinned_ == 0) pinned_.notify_all();
}

ReaderPool::Turn ReaderPool::wait_for_turn(const Thread& self, Job& job) {
  MutexLock lock(mutex_);
  for (;;) {
    const bool pins = pin_until_ != std::chrono::steady_clock::time_point();
    if (stop_) return Turn::end;
    const bool is_over = !pins || std::chrono::steady_clock::now() >= pin_until_;
    if (self.pin == Pin::held && is_over) return Turn::unpin;
    if (pins && self.pinned != pin_number_) return Turn::pin;
    if (!jobs_.empty()) break;
    if (self.pin == Pin::held) {
      const auto until = pin_until_;  // others change the member while this thread waits
      wake_.wait_until(lock, until);
    } else {
      wake_.wait(lock);
    }
  }
  job = std::move(jobs_.front());
  jobs_.pop_front();
  return Turn::work;
}

void ReaderPool::run(Thread& self) {
  std::optional<lmdb::Txn> txn;  // begun by the first job: before that the store may change its environment
  for (;;) {
    Job job;
    const Turn turn = wait_for_turn(self, job);
    if (turn == Turn::end) return;
    if (turn == Turn::pin) {
      take_pin(self, txn);
      continue;
    }
    if (turn == Turn::unpin) {
      self.pin = Pin::over;
      txn->reset();
      continue;
    }
    const bool ready = self.pin == Pin::held || begin(txn);
    self.reading_since_ns.store(monotonic_ns(), std::memory_order_relaxed);
    job(ready ? &*txn : nullptr);
    if (ready && self.pin != Pin::held) txn->reset();
    self.reading_since_ns.store(0, std::memory_order_relaxed);
  }
}

}  // namespace tidegate::cache
