// SPDX-License-Identifier: Apache-2.0
// A function that runs on one loop's thread when any thread asks for it. A flight, the writer or a reader thread wakes
// a client with it.
#pragma once

#include <functional>
#include <memory>

#include "core/event_loop.h"
#include "core/mutex.h"

namespace tidegate::cache {

class LoopCall : public std::enable_shared_from_this<LoopCall> {
 public:
  LoopCall(EventLoop& loop, std::function<void()> fn) : loop_(&loop), fn_(std::move(fn)) {}

  // Any thread. If it is called several times before fn has run, fn runs once.
  void notify() {
    const MutexLock lock(mutex_);
    if (loop_ == nullptr || posted_) return;
    posted_ = true;
    loop_->post([self = shared_from_this()] { self->run(); });
  }
  // Call it on the loop's thread; it may be called within fn. After that, fn is not called any more, and the loop is
  // not used.
  void cancel() {
    const MutexLock lock(mutex_);
    loop_ = nullptr;
  }

 private:
  void run() {
    {
      const MutexLock lock(mutex_);
      posted_ = false;
      if (loop_ == nullptr) return;
    }
    fn_();
  }

  Mutex mutex_;
  EventLoop* loop_ TIDEGATE_GUARDED_BY(mutex_);  // null once cancelled
  bool posted_ TIDEGATE_GUARDED_BY(mutex_) = false;
  std::function<void()> fn_;
};

}  // namespace tidegate::cache
