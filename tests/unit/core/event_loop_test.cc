// SPDX-License-Identifier: Apache-2.0
#include "core/event_loop.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <thread>

#include "core/clock.h"
#include "core/timer_wait.h"

namespace tidegate::event_loop_test {

struct Pair {
  Pair() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    a.reset(fds[0]);
    b.reset(fds[1]);
  }
  UniqueFd a, b;
};

struct Recorder final : IoHandler {
  void on_io(uint32_t events) override {
    ++calls;
    last = events;
    if (then) then();
  }
  int calls = 0;
  uint32_t last = 0;
  std::function<void()> then;
};

TEST(EventLoopIo, CallsAHandlerAgainThatLeavesInputUnreadAndOthersInBetween) {
  EventLoop loop;
  Pair busy, other;
  Recorder busy_handler, other_handler;
  std::string order;
  busy_handler.then = [&] {
    order += 'b';
    loop.call_again(busy.a.get());
    loop.call_again(busy.a.get());  // a second call changes nothing
  };
  other_handler.then = [&] { order += 'o'; };
  ASSERT_TRUE(loop.add(busy.a.get(), EPOLLIN | EPOLLET, &busy_handler));
  ASSERT_TRUE(loop.add(other.a.get(), EPOLLIN | EPOLLET, &other_handler));
  ASSERT_EQ(::write(busy.b.get(), "x", 1), 1);
  loop.run_once(kNsPerS);
  ASSERT_EQ(::write(other.b.get(), "x", 1), 1);
  loop.run_once(kNsPerS);
  loop.run_once(kNsPerS);
  EXPECT_EQ(order, "bobb");
  loop.remove(busy.a.get());
  loop.run_once(0);
  EXPECT_EQ(busy_handler.calls, 3);
  loop.remove(other.a.get());
}

TEST(EventLoopIo, TellsTheHandlerWhatIsReady) {
  EventLoop loop;
  Pair pair;
  Recorder recorder;
  ASSERT_TRUE(loop.add(pair.a.get(), EPOLLIN, &recorder));
  loop.run_once(0);
  EXPECT_EQ(recorder.calls, 0);
  ASSERT_EQ(::send(pair.b.get(), "x", 1, 0), 1);
  loop.run_once(kNsPerS);
  EXPECT_EQ(recorder.calls, 1);
  EXPECT_EQ(recorder.last, static_cast<uint32_t>(EPOLLIN));
  loop.modify(pair.a.get(), EPOLLOUT);
  loop.run_once(kNsPerS);
  EXPECT_EQ(recorder.last, static_cast<uint32_t>(EPOLLOUT));
  loop.remove(pair.a.get());
}

TEST(EventLoopIo, DiscardsEventsOfAHandlerRemovedInTheSameBatch) {
  EventLoop loop;
  Pair first, second;
  Recorder one, two;
  ASSERT_TRUE(loop.add(first.a.get(), EPOLLIN, &one));
  ASSERT_TRUE(loop.add(second.a.get(), EPOLLIN, &two));
  one.then = [&] { loop.remove(second.a.get()); };
  two.then = [&] { loop.remove(first.a.get()); };
  ASSERT_EQ(::send(first.b.get(), "x", 1, 0), 1);
  ASSERT_EQ(::send(second.b.get(), "x", 1, 0), 1);
  loop.run_once(kNsPerS);
  EXPECT_EQ(one.calls + two.calls, 1);
  loop.remove(first.a.get());
  loop.remove(second.a.get());
}

TEST(EventLoopIo, AnFdTakenOverWithinABatchDoesNotGetItsPredecessorsEvents) {
  EventLoop loop;
  Pair first, second;
  Recorder one, two, heir;
  ASSERT_TRUE(loop.add(first.a.get(), EPOLLIN, &one));
  ASSERT_TRUE(loop.add(second.a.get(), EPOLLIN, &two));
  bool handed_over = false;
  const auto hand_over = [&](UniqueFd& fd) {
    if (std::exchange(handed_over, true)) return;
    loop.remove(fd.get());
    ASSERT_TRUE(loop.add(fd.get(), EPOLLOUT, &heir));
  };
  one.then = [&] { hand_over(second.a); };
  two.then = [&] { hand_over(first.a); };
  ASSERT_EQ(::send(first.b.get(), "x", 1, 0), 1);
  ASSERT_EQ(::send(second.b.get(), "x", 1, 0), 1);
  loop.run_once(kNsPerS);
  EXPECT_EQ(heir.calls, 0);
  loop.run_once(kNsPerS);
  EXPECT_EQ(heir.calls, 1);
  loop.remove(first.a.get());
  loop.remove(second.a.get());
}

TEST(EventLoopIo, RemovingWhatWasNeverAddedIsHarmless) {
  EventLoop loop;
  loop.remove(999);
}

// The heap with lazy re-arming, compared with a plain list of deadlines.
TEST(Timers, FireLikeAPlainListOfDeadlines) {
  EventLoop loop;
  std::mt19937 random(7);
  constexpr size_t kTimers = 64;
  std::array<uint64_t, kTimers> twin{};  // 0: idle
  std::vector<size_t> fired;
  std::vector<std::unique_ptr<Timer>> timers;
  const auto make = [&](size_t i) { return std::make_unique<Timer>(loop, [&fired, i] { fired.push_back(i); }); };
  for (size_t i = 0; i < kTimers; ++i) timers.push_back(make(i));

  size_t total = 0;
  for (int round = 0; round < 5'000; ++round) {
    for (int op = 0; op < 4; ++op) {
      const size_t i = random() % kTimers;
      switch (random() % 8) {
        case 0:
          timers[i]->cancel();
          twin[i] = 0;
          break;
        case 1:
          timers[i] = make(i);
          twin[i] = 0;
          break;
        default:
          twin[i] = loop.now_ns() + 1 + random() % 300'000;
          timers[i]->arm_at_ns(twin[i]);
      }
    }
    fired.clear();
    loop.run_once(0);
    std::vector<std::pair<uint64_t, size_t>> due;
    for (size_t i = 0; i < kTimers; ++i) {
      if (twin[i] != 0 && twin[i] <= loop.now_ns()) due.emplace_back(std::exchange(twin[i], 0), i);
    }
    ASSERT_EQ(fired.size(), due.size());
    std::map<size_t, uint64_t> deadline_of;
    for (const auto& [deadline, i] : due) deadline_of[i] = deadline;
    for (size_t k = 0; k < fired.size(); ++k) {
      ASSERT_TRUE(deadline_of.count(fired[k]));
      if (k > 0) {
        ASSERT_LE(deadline_of[fired[k - 1]], deadline_of[fired[k]]);
      }
    }
    for (size_t i = 0; i < kTimers; ++i) ASSERT_EQ(timers[i]->armed(), twin[i] != 0);
    total += fired.size();
  }
  EXPECT_GT(total, 1'000u);
}

// As after a pause of the process: input that arrived meanwhile is handled before the deadlines that passed.
TEST(Timers, ComeAfterEverythingThatHasArrived) {
  EventLoop loop;
  constexpr size_t kSockets = 400;  // more than one epoll_wait returns
  std::vector<Pair> pairs(kSockets);
  std::vector<Recorder> recorders(kSockets);
  size_t heard = 0, heard_before_timer = 0;
  bool posted_before_timer = false, posted = false;
  Timer deadline(loop, [&] {
    heard_before_timer = heard;
    posted_before_timer = posted;
  });
  for (size_t i = 0; i < kSockets; ++i) {
    recorders[i].then = [&, i] {
      char byte;
      if (::recv(pairs[i].a.get(), &byte, 1, 0) == 1) ++heard;
    };
    ASSERT_TRUE(loop.add(pairs[i].a.get(), EPOLLIN, &recorders[i]));
    ASSERT_EQ(::send(pairs[i].b.get(), "x", 1, 0), 1);
  }
  loop.post([&] { posted = true; });
  deadline.arm_after_ns(1);
  while (monotonic_ns() < loop.now_ns() + kNsPerMs) {
  }
  loop.run_once(0);
  EXPECT_FALSE(deadline.armed());
  EXPECT_EQ(heard_before_timer, kSockets);
  EXPECT_TRUE(posted_before_timer);
  for (const Pair& pair : pairs) loop.remove(pair.a.get());
}

constexpr uint64_t kStoppedDeadlineNs = 200 * kNsPerMs;

// In its own process: waits for input with a deadline. Exits with 1 if the input was first, and with 2 if the timer
// was.
[[noreturn]] void wait_with_deadline(int fd) {
  EventLoop loop;
  Recorder recorder;
  int outcome = 0;
  Timer deadline(loop, [&] { outcome = 2; });
  recorder.then = [&] {
    deadline.cancel();
    outcome = 1;
  };
  if (!loop.add(fd, EPOLLIN, &recorder)) ::_exit(3);
  ::raise(SIGSTOP);  // the test sees that it is ready
  deadline.arm_at_ns(monotonic_ns() + kStoppedDeadlineNs);
  while (outcome == 0) loop.run_once(kNsPerS);
  ::_exit(outcome);
}

bool sleeps(pid_t process) {
  std::ifstream in("/proc/" + std::to_string(process) + "/stat");
  const std::string text{std::istreambuf_iterator<char>(in), {}};
  const size_t name_end = text.rfind(") ");
  return name_end != std::string::npos && text.compare(name_end + 2, 1, "S") == 0;
}

// Stops a process in its wait, gives it input before its deadline, and lets it continue after the deadline. Returns its
// exit status, or nothing if this machine was too slow.
std::optional<int> stop_in_wait() {
  Pair pair;
  const pid_t child = ::fork();
  if (child == 0) wait_with_deadline(pair.a.get());
  int status = 0;
  ::waitpid(child, &status, WUNTRACED);
  const uint64_t deadline_ns = monotonic_ns() + kStoppedDeadlineNs;  // or later
  ::kill(child, SIGCONT);
  while (!sleeps(child) && monotonic_ns() < deadline_ns) std::this_thread::yield();
  ::kill(child, SIGSTOP);
  ::waitpid(child, &status, WUNTRACED);
  const bool written = ::write(pair.b.get(), "x", 1) == 1;
  const bool in_time = monotonic_ns() < deadline_ns;
  const uint64_t later_ns = monotonic_ns() + kStoppedDeadlineNs;  // after the child's deadline
  while (monotonic_ns() < later_ns) std::this_thread::yield();
  ::kill(child, SIGCONT);
  ::waitpid(child, &status, 0);
  if (!written || !in_time) return std::nullopt;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// The same after a pause that interrupts the wait itself: a stopped process, a virtual machine that moves.
TEST(Timers, ComeAfterInputThatArrivedWhileTheProcessWasStopped) {
  std::optional<int> outcome;
  for (int tries = 0; !outcome && tries < 50; ++tries) outcome = stop_in_wait();
  EXPECT_EQ(outcome, 1) << "2: the timer fired although the input had come";
}

TEST(Timers, AnAnswerThatCameInTimeCancelsItsDeadline) {
  EventLoop loop;
  Pair pair;
  Recorder recorder;
  bool late = false;
  Timer deadline(loop, [&] { late = true; });
  recorder.then = [&] { deadline.cancel(); };
  ASSERT_TRUE(loop.add(pair.a.get(), EPOLLIN, &recorder));
  deadline.arm_after_ns(1);
  ASSERT_EQ(::send(pair.b.get(), "x", 1, 0), 1);
  while (monotonic_ns() < loop.now_ns() + kNsPerMs) {
  }
  loop.run_once(0);
  EXPECT_EQ(recorder.calls, 1);
  EXPECT_FALSE(late);
  loop.remove(pair.a.get());
}

// Sockets that are always ready must not starve the timers.
TEST(Timers, AreNotStarvedBySocketsThatAreAlwaysReady) {
  EventLoop loop;
  std::vector<Pair> pairs(300);
  std::vector<Recorder> recorders(pairs.size());
  for (size_t i = 0; i < pairs.size(); ++i) {
    ASSERT_TRUE(loop.add(pairs[i].a.get(), EPOLLOUT, &recorders[i]));
  }
  bool fired = false;
  Timer timer(loop, [&] { fired = true; });
  timer.arm_after_ns(1);
  while (monotonic_ns() < loop.now_ns() + kNsPerMs) {
  }
  loop.run_once(0);
  EXPECT_TRUE(fired);
  for (const Pair& pair : pairs) loop.remove(pair.a.get());
}

TEST(Timers, MayDestroyThemselvesFromTheirOwnCallback) {
  EventLoop loop;
  int fired = 0;
  std::unique_ptr<Timer> timer;
  const auto witness = std::make_shared<int>(0);
  timer = std::make_unique<Timer>(loop, [&, witness] {
    timer.reset();
    fired += 1 + *witness;  // the captures must still exist here
  });
  timer->arm_after_ns(0);
  while (fired == 0) loop.run_once(kNsPerMs);
  EXPECT_EQ(fired, 1);
}

TEST(Timers, MayDestroyEachOther) {
  EventLoop loop;
  int fired = 0;
  std::unique_ptr<Timer> one, two;
  one = std::make_unique<Timer>(loop, [&] { ++fired, two.reset(); });
  two = std::make_unique<Timer>(loop, [&] { ++fired, one.reset(); });
  const uint64_t soon = loop.now_ns() + 1'000;
  one->arm_at_ns(soon);
  two->arm_at_ns(soon);
  while (fired == 0) loop.run_once(kNsPerMs);
  loop.run_once(0);
  EXPECT_EQ(fired, 1);
}

TEST(Timers, OneThatRearmsItselfForNowLeavesTheLoopItsTurn) {
  EventLoop loop;
  int fired = 0;
  Timer* self = nullptr;
  Timer timer(loop, [&] {
    ++fired;
    self->arm_after_ns(0);
  });
  self = &timer;
  timer.arm_after_ns(0);
  loop.run_once(kNsPerMs);
  loop.run_once(kNsPerMs);
  EXPECT_GE(fired, 1);
  EXPECT_LE(fired, 2);
}

// The kernel as a made clock: each wait ends late, by a share of its length.
TEST(Timers, AreNotLateByAShareOfALongWait) {
  for (const uint64_t late_share : {1'000u, 200u}) {  // of a process with nice 0, and with a greater one
    for (const uint64_t delay_ns : {1 * kNsPerMs, 50 * kNsPerMs, 300 * kNsPerMs, 3 * kNsPerS, 10 * kNsPerS,
                                    60 * kNsPerS, 3'600 * kNsPerS, 86'400 * kNsPerS}) {
      uint64_t now_ns = 0;
      int waits = 0;
      for (; now_ns < delay_ns; ++waits) {
        const uint64_t wait_ns = wait_for_timer_ns(delay_ns - now_ns);
        ASSERT_GT(wait_ns, 0u);
        now_ns += wait_ns + std::min(wait_ns / late_share, 100 * kNsPerMs);  // the kernel's own bound
      }
      EXPECT_LE(now_ns - delay_ns, kNsPerMs) << delay_ns << " ns, late by 1/" << late_share;
      EXPECT_LE(waits, 5) << delay_ns << " ns: a wait more costs a turn of the loop";
    }
  }
}

TEST(Timers, AnEndlessDelayNeverFires) {
  EventLoop loop;
  Timer timer(loop, [] { FAIL(); });
  timer.arm_after_ns(UINT64_MAX);
  loop.run_once(0);
  EXPECT_FALSE(timer.armed());
}

TEST(Mailbox, KeepsEachThreadsOrderAndLosesNothing) {
  EventLoop loop;
  constexpr int kThreads = 4, kMessages = 2'000;
  std::array<int, kThreads> next{};
  int total = 0;
  bool ordered = true;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kMessages; ++i) {
        loop.post([&, t, i] {
          ordered = ordered && next[t] == i;
          ++next[t];
          if (++total == kThreads * kMessages) loop.stop();
        });
      }
    });
  }
  loop.run();
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(ordered);
  EXPECT_EQ(total, kThreads * kMessages);
}

TEST(Mailbox, AStopBeforeRunIsNotLost) {
  EventLoop loop;
  std::thread([&] { loop.stop(); }).join();
  loop.run();  // returns at once
  bool ran = false;
  loop.post([&] {
    ran = true;
    loop.stop();
  });
  loop.run();
  EXPECT_TRUE(ran);
}

TEST(Mailbox, DropsWhatIsLeftWithTheLoop) {
  const auto witness = std::make_shared<int>(0);
  {
    EventLoop loop;
    loop.post([witness] { FAIL(); });
    loop.defer([witness] { FAIL(); });
    EXPECT_EQ(witness.use_count(), 3);
  }
  EXPECT_EQ(witness.use_count(), 1);
}

TEST(Deferred, RunsAfterTheIterationAndWhatItDefersInTheNext) {
  EventLoop loop;
  std::string order;
  loop.post([&] {
    loop.defer([&] {
      order += 'b';
      loop.defer([&] { order += 'c'; });
    });
    order += 'a';
  });
  loop.run_once(kNsPerS);
  EXPECT_EQ(order, "ab");
  loop.run_once(kNsPerS);  // does not wait
  EXPECT_EQ(order, "abc");
}

}  // namespace tidegate::event_loop_test
