// SPDX-License-Identifier: Apache-2.0
// A function of one loop's thread that any thread may ask to have run there: how a flight, the writer or a reader
// thread wakes a client.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "core/event_loop.h"

namespace tidegate::cache {

class LoopCall : public std::enable_shared_from_this<LoopCall> {
 public:
  LoopCall(EventLoop& loop, std::function<void()> fn) : loop_(&loop), fn_(std::move(fn)) {}

  // Any thread. Asked several times before it ran, it runs once.
  void notify() {
    const std::lock_guard lock(mutex_);
    if (loop_ == nullptr || posted_) return;
    posted_ = true;
    loop_->post([self = shared_from_this()] { self->run(); });
  }
  // The loop's thread, also from within fn. Afterwards fn is not called and the loop not touched.
  void cancel() {
    const std::lock_guard lock(mutex_);
    loop_ = nullptr;
  }

 private:
  void run() {
    {
      const std::lock_guard lock(mutex_);
      posted_ = false;
      if (loop_ == nullptr) return;
    }
    fn_();
  }

  std::mutex mutex_;
  EventLoop* loop_;  // guarded by mutex_; null once cancelled
  bool posted_ = false;
  std::function<void()> fn_;
};

}  // namespace tidegate::cache
