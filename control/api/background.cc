// SPDX-License-Identifier: Apache-2.0
#include "control/api/background.h"

#include <exception>

#include "core/assert.h"
#include "core/log.h"
#include "core/thread.h"

namespace tidegate {

Background::Background(EventLoop& loop, std::string name, size_t max_jobs)
    : loop_(loop), name_(std::move(name)), max_jobs_(max_jobs) {}

Background::~Background() {
  *self_ = nullptr;
  std::deque<Job> dropped;
  {
    const MutexLock lock(mutex_);
    ending_ = true;
    dropped.swap(queue_);
  }
  wake_.notify_one();
  if (thread_.joinable()) thread_.join();
  pending_.clear();
}

bool Background::submit(std::function<void()> work, std::function<void()> then) {
  if (pending_.size() >= max_jobs_) return false;
  const uint64_t id = next_id_++;
  pending_.emplace(id, std::move(then));
  enqueue({id, std::move(work)});
  return true;
}

void Background::discard(std::shared_ptr<void> garbage) {
  enqueue({0, [garbage = std::move(garbage)]() mutable { garbage.reset(); }});
}

void Background::enqueue(Job job) {
  {
    const MutexLock lock(mutex_);
    queue_.push_back(std::move(job));
  }
  if (!thread_.joinable()) thread_ = start_thread(name_, [this] { serve(); });
  wake_.notify_one();
}

void Background::serve() {
  for (;;) {
    Job job;
    {
      MutexLock lock(mutex_);
      while (!ending_ && queue_.empty()) wake_.wait(lock);
      if (ending_) return;
      job = std::move(queue_.front());
      queue_.pop_front();
    }
    try {
      job.work();
    } catch (const std::exception& error) {
      log_error("{}: {}", name_, error.what());
    }
    job.work = nullptr;
    if (job.id == 0) continue;
    loop_.post([self = self_, id = job.id] {
      if (*self != nullptr) (*self)->finish(id);
    });
  }
}

void Background::finish(uint64_t id) {
  auto job = pending_.extract(id);
  TIDEGATE_ASSERT(!job.empty(), "a job finishes once");
  job.mapped()();
}

}  // namespace tidegate
