// SPDX-License-Identifier: Apache-2.0
// EventLoop: one thread's epoll set, its timers, and a mailbox through which other threads hand it work.
//
// Threads: everything but post() and stop() belongs to the thread that calls run(). Nothing here allocates once fds and
// timers are set up, except post() (one node a message).
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/fd.h"

namespace tidegate {

// Told of readiness. The handler is borrowed: it must be removed from the loop before it dies.
class IoHandler {
 public:
  virtual void on_io(uint32_t events) = 0;  // EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP

 protected:
  ~IoHandler() = default;
};

class Counter;
class EventLoop;

// A one-shot timer bound to one loop. Re-arming to a later time costs O(1): the heap entry is left where it is and
// moved when it comes up, which makes per-request idle timers cheap. Destroying or cancelling is safe from any
// callback.
class Timer {
 public:
  Timer(EventLoop& loop, std::function<void()> on_fire) : loop_(loop), on_fire_(std::move(on_fire)) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // A deadline that has passed fires in the next iteration, never in this one; UINT64_MAX never.
  void arm_after_ns(uint64_t delay_ns);
  void arm_after_ms(uint64_t delay_ms) { arm_after_ns(delay_ms * 1'000'000); }
  void arm_at_ns(uint64_t deadline_ns);  // monotonic
  void cancel() { deadline_ns_ = kIdle; }
  bool armed() const { return deadline_ns_ != kIdle; }

 private:
  friend class EventLoop;
  static constexpr uint64_t kIdle = UINT64_MAX;
  static constexpr size_t kNotQueued = SIZE_MAX;

  EventLoop& loop_;
  std::function<void()> on_fire_;
  uint64_t deadline_ns_ = kIdle;  // when to fire
  uint64_t queued_ns_ = kIdle;    // key in the heap; never later than deadline_ns_
  size_t heap_index_ = kNotQueued;
  bool firing_ = false;
};

class EventLoop {
 public:
  EventLoop();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // `events` may hold EPOLLET. The fd stays its owner's. Fails only when the kernel refuses (assertion otherwise).
  bool add(int fd, uint32_t events, IoHandler* handler);
  void modify(int fd, uint32_t events);
  void remove(int fd);  // before closing it; events already fetched for it are discarded
  // Calls the handler of `fd` with EPOLLIN in the next iteration, which does not wait: for a handler that leaves input
  // unread so that others have their turn. An edge-triggered socket would not be reported again.
  void call_again(int fd);
  // Counts each call_again from now on.
  void count_calls_again(Counter& counter) { calls_again_ = &counter; }

  // Runs until stop(); a stop() that came before ends it at once. One iteration: readiness, mailbox, timers due,
  // deferred. Timers come after what has arrived: a process that was paused judges by the answer in the socket, not by
  // the deadline that went by meanwhile.
  void run();
  // One iteration that waits at most `max_wait_ns` (tests, and loops embedded in others).
  void run_once(uint64_t max_wait_ns);
  void stop();  // any thread

  // Runs fn on the loop's thread, in order of posting. Any thread. Work posted after the loop ended is dropped with it.
  void post(std::function<void()> fn);
  // Runs fn at the end of the current iteration: the place to destroy an object from within its own callback.
  void defer(std::function<void()> fn) { deferred_.push_back(std::move(fn)); }

  uint64_t now_ns() const { return now_ns_; }  // monotonic, as of the start of this iteration
  int fd() const { return epoll_.get(); }

 private:
  friend class Timer;
  struct Slot {
    IoHandler* handler = nullptr;
    uint32_t generation = 0;
    bool again = false;  // it is in again_
  };

  struct Call {
    uint32_t fd;
    uint32_t generation;
  };

  bool hand_out(const epoll_event* events, int count);  // true: the mailbox has something
  void fire_due_timers();
  void fire(Timer* timer);
  void call(uint32_t fd, uint32_t generation, uint32_t events);
  void drain_mailbox();
  void run_deferred();
  void heap_insert(Timer* timer);
  void heap_remove(Timer* timer);
  void sift_up(size_t index);
  void sift_down(size_t index);
  void place(size_t index, Timer* timer);

  UniqueFd epoll_;
  UniqueFd wake_;
  std::vector<Slot> slots_;            // by fd
  std::vector<Timer*> heap_;           // min-heap by queued_ns_
  std::vector<Call> again_, calling_;  // to be called in the next iteration, and in this one
  Counter* calls_again_ = nullptr;
  Timer* firing_ = nullptr;  // whose callback runs; null again when that callback destroys it
  std::vector<std::function<void()>> deferred_;
  std::mutex mailbox_mutex_;
  std::vector<std::function<void()>> mailbox_;
  std::atomic<bool> stop_{false};
  uint64_t now_ns_ = 0;
};

}  // namespace tidegate
