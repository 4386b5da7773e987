// SPDX-License-Identifier: Apache-2.0
#include "core/event_loop.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <cassert>
#include <cerrno>
#include <ctime>
#include <utility>

#include "core/clock.h"
#include "core/metrics.h"
#include "core/timer_wait.h"

namespace tidegate {
namespace {

constexpr int kEventsPerWait = 256;
constexpr int kRoundsBeforeTimers = 16;  // of kEventsPerWait events; most loops have no more ready events
constexpr uint64_t kForever = UINT64_MAX;

uint64_t event_data(int fd, uint32_t generation) {
  return static_cast<uint64_t>(generation) << 32 | static_cast<uint32_t>(fd);
}

}  // namespace

Timer::~Timer() {
  if (heap_index_ != kNotQueued) loop_.heap_remove(this);
  if (firing_) loop_.firing_ = nullptr;
}

void Timer::arm_after_ns(uint64_t delay_ns) {
  const uint64_t now_ns = loop_.now_ns();
  arm_at_ns(delay_ns < kIdle - now_ns ? now_ns + delay_ns : kIdle);
}

void Timer::arm_at_ns(uint64_t deadline_ns) {
  // A timer is never due at once: if it re-arms itself for "now", it waits for the next iteration.
  deadline_ns = std::max(deadline_ns, loop_.now_ns() + 1);
  deadline_ns_ = deadline_ns;
  if (deadline_ns == kIdle) return;
  if (heap_index_ == kNotQueued) {
    loop_.heap_insert(this);
  } else if (deadline_ns < queued_ns_) {
    queued_ns_ = deadline_ns;
    loop_.sift_up(heap_index_);
  }
}

EventLoop::EventLoop() : epoll_(::epoll_create1(EPOLL_CLOEXEC)), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  assert(epoll_ && wake_);
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = event_data(wake_.get(), 0);
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event);
  now_ns_ = monotonic_ns();
}

EventLoop::~EventLoop() {
  // Functions that have not run are dropped. Dropping one may defer or post more.
  while (!deferred_.empty() || !mailbox_.empty()) {
    std::vector<std::function<void()>> dropped;
    dropped.swap(deferred_.empty() ? mailbox_ : deferred_);
  }
  for (Timer* timer : heap_) timer->heap_index_ = Timer::kNotQueued;
}

bool EventLoop::add(int fd, uint32_t events, IoHandler* handler) {
  const auto index = static_cast<size_t>(fd);
  if (index >= slots_.size()) slots_.resize(index + 64);
  Slot& slot = slots_[index];
  assert(slot.handler == nullptr);
  epoll_event event{};
  event.events = events;
  event.data.u64 = event_data(fd, slot.generation);
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return false;
  slot.handler = handler;
  return true;
}

void EventLoop::modify(int fd, uint32_t events) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = event_data(fd, slots_[static_cast<size_t>(fd)].generation);
  const int rc = ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
  assert(rc == 0);
  (void)rc;
}

void EventLoop::remove(int fd) {
  const auto index = static_cast<size_t>(fd);
  if (index >= slots_.size() || slots_[index].handler == nullptr) return;
  Slot& slot = slots_[index];
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr);
  slot.handler = nullptr;
  slot.again = false;
  ++slot.generation;  // events of the old registration that are still in the current batch no longer match
}

void EventLoop::call_again(int fd) {
  const auto index = static_cast<uint32_t>(fd);
  if (std::exchange(slots_[index].again, true)) return;
  again_.push_back({index, slots_[index].generation});
  if (calls_again_ != nullptr) calls_again_->add();
}

void EventLoop::call(uint32_t fd, uint32_t generation, uint32_t events) {
  const Slot& slot = slots_[fd];
  if (slot.handler != nullptr && slot.generation == generation) slot.handler->on_io(events);
}

void EventLoop::run() {
  while (!stop_.exchange(false, std::memory_order_acquire)) run_once(kForever);
}

void EventLoop::run_once(uint64_t max_wait_ns) {
  now_ns_ = monotonic_ns();
  uint64_t wait_ns = max_wait_ns;
  calling_.swap(again_);
  for (const Call& again : calling_) {
    if (slots_[again.fd].generation == again.generation) slots_[again.fd].again = false;
  }
  if (!deferred_.empty() || !calling_.empty()) wait_ns = 0;
  const uint64_t due_ns = heap_.empty() ? kForever : heap_.front()->queued_ns_;
  const bool due_before = due_ns <= now_ns_;
  if (!heap_.empty()) wait_ns = std::min(wait_ns, due_before ? 0 : wait_for_timer_ns(due_ns - now_ns_));
  epoll_event events[kEventsPerWait];
  timespec timeout{static_cast<time_t>(wait_ns / kNsPerS), static_cast<long>(wait_ns % kNsPerS)};
  int ready = ::epoll_pwait2(epoll_.get(), events, kEventsPerWait, wait_ns == kForever ? nullptr : &timeout, nullptr);
  assert(ready >= 0 || errno == EINTR);
  now_ns_ = monotonic_ns();
  bool woken = hand_out(events, ready);
  // The process may have been paused, before the wait ended (EINTR) or after it. Input that arrived until now_ns_ is
  // handled first, and only then do the timers see the time that passed. A wait that began after a timer's time, and
  // left room for more events, has returned all of them.
  const bool timer_due = !heap_.empty() && heap_.front()->queued_ns_ <= now_ns_;
  bool all_seen = due_before && ready >= 0 && ready < kEventsPerWait;
  for (int round = 1; timer_due && !all_seen && round < kRoundsBeforeTimers; ++round) {
    ready = ::epoll_wait(epoll_.get(), events, kEventsPerWait, 0);
    woken |= hand_out(events, ready);
    all_seen = ready >= 0 && ready < kEventsPerWait;
  }
  for (const Call& again : calling_) call(again.fd, again.generation, EPOLLIN);
  calling_.clear();
  if (woken) drain_mailbox();
  fire_due_timers();
  run_deferred();
}

bool EventLoop::hand_out(const epoll_event* events, int count) {
  bool woken = false;
  for (int i = 0; i < count; ++i) {
    const auto fd = static_cast<uint32_t>(events[i].data.u64);
    if (static_cast<int>(fd) == wake_.get()) {
      woken = true;
      continue;
    }
    call(fd, static_cast<uint32_t>(events[i].data.u64 >> 32), events[i].events);
  }
  return woken;
}

void EventLoop::stop() {
  stop_.store(true, std::memory_order_release);
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

void EventLoop::post(std::function<void()> fn) {
  bool was_empty;
  {
    const MutexLock lock(mailbox_mutex_);
    was_empty = mailbox_.empty();
    mailbox_.push_back(std::move(fn));
  }
  if (was_empty) {
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
  }
}

void EventLoop::drain_mailbox() {
  uint64_t count;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof count);
  std::vector<std::function<void()>> messages;
  {
    const MutexLock lock(mailbox_mutex_);
    messages.swap(mailbox_);
  }
  for (auto& message : messages) message();
}

void EventLoop::run_deferred() {
  // A deferred function may defer more. Those run in the next iteration, which then does not wait.
  std::vector<std::function<void()>> now;
  now.swap(deferred_);
  for (auto& fn : now) fn();
}

void EventLoop::fire_due_timers() {
  while (!heap_.empty() && heap_.front()->queued_ns_ <= now_ns_) {
    Timer* timer = heap_.front();
    if (timer->deadline_ns_ > timer->queued_ns_ && timer->deadline_ns_ != Timer::kIdle) {
      // it was re-armed to a later time; its new place in the heap follows that time
      timer->queued_ns_ = timer->deadline_ns_;
      sift_down(0);
      continue;
    }
    const bool fires = timer->deadline_ns_ != Timer::kIdle;
    heap_remove(timer);
    timer->deadline_ns_ = Timer::kIdle;
    if (fires) fire(timer);
  }
}

// The callback is moved out of the timer while it runs, because it may destroy its own timer.
void EventLoop::fire(Timer* timer) {
  Timer* const outer = std::exchange(firing_, timer);
  timer->firing_ = true;
  std::function<void()> on_fire;
  on_fire.swap(timer->on_fire_);
  on_fire();
  if (firing_ == timer) {
    timer->firing_ = false;
    on_fire.swap(timer->on_fire_);
  }
  firing_ = outer;
}

void EventLoop::place(size_t index, Timer* timer) {
  heap_[index] = timer;
  timer->heap_index_ = index;
}

void EventLoop::heap_insert(Timer* timer) {
  timer->queued_ns_ = timer->deadline_ns_;
  heap_.push_back(timer);
  timer->heap_index_ = heap_.size() - 1;
  sift_up(timer->heap_index_);
}

void EventLoop::heap_remove(Timer* timer) {
  const size_t index = timer->heap_index_;
  timer->heap_index_ = Timer::kNotQueued;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (last == timer) return;
  place(index, last);
  sift_up(index);
  sift_down(last->heap_index_);
}

void EventLoop::sift_up(size_t index) {
  Timer* timer = heap_[index];
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (heap_[parent]->queued_ns_ <= timer->queued_ns_) break;
    place(index, heap_[parent]);
    index = parent;
  }
  place(index, timer);
}

void EventLoop::sift_down(size_t index) {
  Timer* timer = heap_[index];
  for (;;) {
    size_t child = 2 * index + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->queued_ns_ < heap_[child]->queued_ns_) ++child;
    if (timer->queued_ns_ <= heap_[child]->queued_ns_) break;
    place(index, heap_[child]);
    index = child;
  }
  place(index, timer);
}

}  // namespace tidegate
