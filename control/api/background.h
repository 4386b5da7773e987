// SPDX-License-Identifier: Apache-2.0
// Background: one thread for long work, which runs jobs in order. So a large document never blocks the API or delays a
// probe.
//
// A job is two functions. `work` runs on the thread and must not touch what the loop's thread changes. `then` runs on
// the loop with the result. `then` and everything in it (exchanges) live and die on the loop's thread.
//
// Threads: everything except `work` belongs to the loop's thread. The destructor waits for the running job, and drops
// the others with their `then`.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "core/event_loop.h"
#include "core/mutex.h"

namespace tidegate {

class Background {
 public:
  // The thread has the name `name` and starts with the first job. At most `max_jobs` wait or run.
  Background(EventLoop& loop, std::string name, size_t max_jobs);
  ~Background();
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  // Returns false if there are `max_jobs` jobs already. If `work` threw, `then` is called with nothing.
  template <class Work, class Then>
  [[nodiscard]] bool run(Work work, Then then) {
    using Done = decltype(work());
    const auto done = std::make_shared<std::optional<Done>>();
    return submit([work = std::move(work), done]() mutable { done->emplace(work()); },
                  [then = std::move(then), done]() mutable { then(std::move(*done)); });
  }
  // Destroys a large object on the thread, where this delays nobody.
  void discard(std::shared_ptr<void> garbage);
  size_t jobs() const { return pending_.size(); }

 private:
  struct Job {
    uint64_t id;  // 0: there is no `then`
    std::function<void()> work;
  };
  bool submit(std::function<void()> work, std::function<void()> then);
  void enqueue(Job job);
  void serve();
  void finish(uint64_t id);

  EventLoop& loop_;
  const std::string name_;
  const size_t max_jobs_;
  std::shared_ptr<Background*> self_ = std::make_shared<Background*>(this);  // null once this object is destroyed
  std::map<uint64_t, std::function<void()>> pending_;                        // `then` by job
  uint64_t next_id_ = 1;
  std::thread thread_;

  Mutex mutex_;
  MutexCondition wake_;
  std::deque<Job> queue_ TIDEGATE_GUARDED_BY(mutex_);
  bool ending_ TIDEGATE_GUARDED_BY(mutex_) = false;
};

}  // namespace tidegate
