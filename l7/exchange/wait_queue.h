// SPDX-License-Identifier: Apache-2.0
// WaitQueue: the requests of one worker that wait for a backend of one pool, because each backend has its
// max_connections. First come, first served: only the first one may take a connection, and a newcomer goes to the end.
// A request that has already failed on a backend can use only the other backends. While it is first, it must not block
// the failed backend for others. So the first request that can use every backend may take a connection too.
//
// Bounds: `queue_size` of the pool. When the queue is half full, no client has more than its share of it
// (kQueueShares). A keyed hash from the caller identifies a client.
//
// Ownership: intrusive, so that joining and leaving allocate nothing. A waiter leaves before it is destroyed.
// Threads: the worker's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

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
    Transaction& transaction() const { return *transaction_; }

   private:
    friend class WaitQueue;
    Transaction* const transaction_;
    WaitQueue* queue_ = nullptr;
    Waiter* before_ = nullptr;
    Waiter* after_ = nullptr;
    size_t client_ = 0;
    bool picky_ = false;
  };

  // Adds a waiter at the end. Returns false if the queue already holds `most`, or if the client has its share. `picky`:
  // the waiter cannot use every backend.
  [[nodiscard]] bool join(Waiter& waiter, uint64_t client, uint32_t most, bool picky = false);
  static void leave(Waiter& waiter);
  Waiter* first() const { return first_; }
  // The first waiter that can use every backend; null if there is none. O(picky ones before it).
  Waiter* first_for_all() const;
  // Whether the waiter may take a connection.
  bool is_next(const Waiter& waiter) const { return first_ == &waiter || first_for_all() == &waiter; }
  uint32_t size() const { return size_; }

 private:
  Waiter* first_ = nullptr;
  Waiter* last_ = nullptr;
  uint32_t size_ = 0;
  std::array<uint32_t, kQueueClients> of_client_{};
};

}  // namespace tidegate::l7
