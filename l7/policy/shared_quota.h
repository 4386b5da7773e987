// SPDX-License-Identifier: Apache-2.0
// SharedQuota: the quotas of a limit that several proxies share through a Redis server. A proxy takes tokens in leases
// (by a script that is a token bucket on the server's clock), and spends them without asking. The state of each key is
// in a LimitTable: one word, changed by compare-and-swap.
//
//   bits 0 to 15    tokens of the lease that are left
//   bit 16          the server is being asked
//   bits 17 to 63   until when that holds, in ms (monotonic). Without tokens: until when requests are refused
//
// A lease is asked for when the last one is nearly spent, so only a key's first requests wait. They wait at most as
// long as RedisLink's time limit for a command.
//
// Threads: any. Waiters are woken on the thread of their own loop.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/event_loop.h"
#include "core/mutex.h"
#include "l7/policy/limit_table.h"
#include "l7/policy/redis_link.h"

namespace tidegate::l7::policy {

class SharedQuota final : public Runtime {
 public:
  struct Terms {
    uint64_t interval_us;  // time between two tokens
    uint64_t burst;        // tokens of a full bucket
    uint64_t lease;        // tokens that are taken at once
    // The size of a lease. A small lease needs many calls, and a large one leaves many tokens unused at other proxies.
    static uint64_t lease_of(uint64_t requests, uint64_t per_ms, uint64_t burst);
  };
  enum class Answer : uint8_t {
    allowed,
    refused,
    asks,    // the server is being asked: wait with a Waiter
    failed,  // the server cannot be asked
  };
  static constexpr uint64_t kUnknown = UINT64_MAX;
  struct Taken {
    Answer answer;
    uint64_t retry_ns = 0;  // refused
    // if allowed: tokens in the bucket when the server was last asked, plus those of this proxy's lease
    uint64_t left = kUnknown;
  };

  // Waits for a key. Any thread.
  class Waiter {
   public:
    Waiter(EventLoop& loop, std::function<void()> wake) : loop_(&loop), wake_(std::move(wake)) {}
    // On the loop's thread: it is not woken any more.
    void cancel();
    bool over() const { return over_.load(std::memory_order_acquire); }
    bool failed() const { return failed_.load(std::memory_order_relaxed); }

   private:
    friend class SharedQuota;
    static void tell(const std::shared_ptr<Waiter>& waiter, bool failed);
    Mutex mutex_;
    EventLoop* loop_ TIDEGATE_GUARDED_BY(mutex_);
    std::function<void()> wake_;  // called only on the loop's thread
    bool cancelled_ = false;      // used only on the loop's thread
    std::atomic<bool> over_{false}, failed_{false};
  };

  // `prefix`: of the keys at the server. `tells_left`: Taken::left must be computed.
  SharedQuota(RedisLink::Options options, size_t keys, std::string prefix, bool tells_left);

  Taken take(uint64_t key, const Terms& terms, uint64_t now_ns);
  // Tells the waiter when the server has answered for the key. The answer may be there at once.
  void wait(uint64_t key, const std::shared_ptr<Waiter>& waiter);
  // Like take(), but changes nothing.
  Answer would_answer(uint64_t key, uint64_t now_ns) const;

  const RedisLink& link() const { return link_; }

 private:
  bool ask(uint64_t key, const Terms& terms);
  void learn(uint64_t key, const Terms& terms, const std::vector<int64_t>& answer);
  void note_left(uint64_t key, uint64_t left, uint64_t fill_ms, uint64_t now_ms);
  uint64_t left_of(uint64_t key) const;
  std::atomic<uint64_t>& state_of(uint64_t key, uint64_t now_ns);

  const std::string prefix_;
  LimitTable table_;
  // By key, in this order of bits: until when the value is valid (ms, 40 bits), and the tokens left at the server (24
  // bits). Null if not wanted.
  const std::unique_ptr<LimitTable> left_;
  Mutex mutex_;
  std::map<uint64_t, std::vector<std::shared_ptr<Waiter>>> waiters_ TIDEGATE_GUARDED_BY(mutex_);
  RedisLink link_;  // the last member, because its thread must end first
};

}  // namespace tidegate::l7::policy
