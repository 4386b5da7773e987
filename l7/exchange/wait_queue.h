// SPDX-License-Identifier: Apache-2.0
// WaitQueue: the requests of one worker that wait for a backend of one pool, because each backend has its
// max_connections. There is a list for each priority, and a newcomer goes to the end of its list. Only the next one may
// take a connection:
//   - the first one of the highest priority;
//   - once in kQueueTurns turns, the one that has waited longest. So nobody waits for ever: who has n requests before
//   it
//     in the order of arrival has its turn after (n + 1) * kQueueTurns turns at the latest.
// A request that has already failed on a backend can use only the other backends. While it is next, it must not block
// the failed backend for others. So the next request that can use every backend may take a connection too.
//
// Bounds: `queue_size` of the pool. In a full queue the last one of the lowest priority is pushed out for a newcomer of
// a higher priority. When the queue is half full, no client has more than its share of it (kQueueShares). A keyed hash
// from the caller identifies a client.
//
// Ownership: intrusive, so that joining and leaving allocate nothing. A waiter leaves before it is destroyed.
// Threads: the worker's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "conf/model.h"
#include "l7/limits.h"

namespace tidegate::l7 {

class Transaction;

class WaitQueue {
 public:
  class Waiter {
   public:
    explicit Waiter(Transaction* transaction) : transaction_(transaction) {}
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    bool waits() const { return queue_ != nullptr; }
    // It has lost its place to one of a higher priority, and has not called leave() since.
    bool is_pushed_out() const { return pushed_out_; }
    Transaction& transaction() const { return *transaction_; }

   private:
    friend class WaitQueue;
    Transaction* const transaction_;
    WaitQueue* queue_ = nullptr;
    Waiter* before_ = nullptr;
    Waiter* after_ = nullptr;
    uint64_t number_ = 0;  // in the order of arrival
    size_t client_ = 0;
    QueuePriority priority_ = QueuePriority::normal;
    bool picky_ = false;
    bool pushed_out_ = false;
  };
  struct Joined {
    bool joined;
    Waiter* pushed_out = nullptr;  // lost its place; the caller wakes it
    explicit operator bool() const { return joined; }
  };

  // Adds a waiter at the end of its list. It does not join if the queue already holds `most` and none of them has a
  // lower priority, or if the client has its share. `picky`: the waiter cannot use every backend.
  [[nodiscard]] Joined join(Waiter& waiter, uint64_t client, uint32_t most, bool picky = false,
                            QueuePriority priority = QueuePriority::normal);
  static void leave(Waiter& waiter);
  // Like leave(), for one that was next and uses its turn.
  static void take_turn(Waiter& waiter);
  // The next waiter; null if there is none.
  Waiter* first() const { return next(false); }
  // The next waiter that can use every backend; null if there is none. O(picky ones before it).
  Waiter* first_for_all() const { return next(true); }
  // Whether the waiter may take a connection.
  bool is_next(const Waiter& waiter) const { return first() == &waiter || first_for_all() == &waiter; }
  uint32_t size() const { return size_; }

 private:
  struct List {
    Waiter* first = nullptr;
    Waiter* last = nullptr;
  };
  static constexpr size_t kPriorities = static_cast<size_t>(QueuePriority::high) + 1;

  List& list_of(const Waiter& waiter) { return lists_[static_cast<size_t>(waiter.priority_)]; }
  Waiter* next(bool for_all) const;
  Waiter* last_below(QueuePriority priority) const;

  std::array<List, kPriorities> lists_{};  // by QueuePriority
  uint64_t arrivals_ = 0;
  uint64_t turns_ = 0;  // how many were taken
  uint32_t size_ = 0;
  std::array<uint32_t, kQueueClients> of_client_{};
};

}  // namespace tidegate::l7
