// SPDX-License-Identifier: Apache-2.0
// EventLoop: the epoll set of one thread, its timers, and a mailbox through which other threads give it work.
//
// Threads: Everything except post() and stop() belongs to the thread that calls run(). Once descriptors and timers are
// set up, only post() allocates (one node per message).
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "core/fd.h"
#include "core/mutex.h"

namespace tidegate {

// Is told when a descriptor is ready. The loop borrows the handler: remove it from the loop before it is destroyed.
class IoHandler {
 public:
  virtual void on_io(uint32_t events) = 0;  // EPOLLIN, EPOLLOUT, EPOLLHUP, EPOLLERR, EPOLLRDHUP

 protected:
  ~IoHandler() = default;
};

class Counter;
class EventLoop;

// A one-shot timer of one loop. Re-arming it to a later time costs O(1): its heap entry stays in place and is moved
// when it comes up. So an idle timer per request is cheap. A timer may be destroyed or cancelled in any callback.
class Timer {
 public:
  Timer(EventLoop& loop, std::function<void()> on_fire) : loop_(loop), on_fire_(std::move(on_fire)) {}
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // A deadline in the past fires in the next iteration, never in this one. UINT64_MAX means never.
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

  // `events` may contain EPOLLET. The caller keeps the fd. Returns false only if the kernel refuses; misuse is an
  // assertion.
  bool add(int fd, uint32_t events, IoHandler* handler);
  void modify(int fd, uint32_t events);
  void remove(int fd);  // call it before closing the fd; events already fetched for the fd are discarded
  // Calls the handler of `fd` with EPOLLIN in the next iteration, which does not wait. It is for a handler that leaves
  // input unread so that others have their turn: an edge-triggered socket would not be reported again.
  void call_again(int fd);
  // Counts each later call_again().
  void count_calls_again(Counter& counter) { calls_again_ = &counter; }

  // Runs until stop(). A stop() that came earlier ends it at once. One iteration handles, in this order: ready
  // descriptors, the mailbox, due timers, deferred functions. Timers come after input that has arrived: if the process
  // was paused, the answer in the socket counts, not the deadline that passed meanwhile.
  void run();
  // Runs one iteration that waits at most `max_wait_ns`. For tests, and for loops embedded in others.
  void run_once(uint64_t max_wait_ns);
  void stop();  // any thread

  // Runs fn on the loop's thread, in the order of posting. Any thread may call it. Work posted after the loop ended is
  // destroyed with the loop.
  void post(std::function<void()> fn);
  // Runs fn at the end of the current iteration. Use it to destroy an object from within its own callback.
  void defer(std::function<void()> fn) { deferred_.push_back(std::move(fn)); }

  uint64_t now_ns() const { return now_ns_; }  // monotonic; the start of this iteration
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

  bool hand_out(const epoll_event* events, int count);  // returns true if the mailbox has work
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
  std::vector<Slot> slots_;            // indexed by fd
  std::vector<Timer*> heap_;           // min-heap by queued_ns_
  std::vector<Call> again_, calling_;  // calls for the next iteration; calls of the current one
  Counter* calls_again_ = nullptr;
  Timer* firing_ = nullptr;  // the timer whose callback runs; null if that callback destroyed it
  std::vector<std::function<void()>> deferred_;
  Mutex mailbox_mutex_;
  std::vector<std::function<void()>> mailbox_ TIDEGATE_GUARDED_BY(mailbox_mutex_);
  std::atomic<bool> stop_{false};
  uint64_t now_ns_ = 0;
};

}  // namespace tidegate
