// SPDX-License-Identifier: Apache-2.0
// WaitQueue: the requests of one worker that wait for a backend of one pool, because each backend has its
// max_connections. Only the next one may take a connection:
//   - the first one of the highest priority;
//   - once in kQueueTurns turns, the one that has waited longest. So nobody waits for ever: a request with n requests
//     before it in the order of arrival has its turn after at most (n + 1) * kQueueTurns turns.
// A request that has already failed on a backend can use only the other backends. While it is next, it must not block
// the failed backend for others. So the next request that can use every backend may take a connection too.
//
// Fairness: each client has a share of the places (kQueueShares), for its requests of the highest priorities. Its other
// requests are guests. A guest uses a place that nobody else needs, so a thousand clients behind one address can fill
// the queue. But guests go after the others of their priority, and in a full queue the last guest is pushed out for a
// newcomer of another client that has its share free. When a request of a client's share leaves, the client's first
// guest of its highest priority joins the end of the others. A newcomer whose client has used its share with requests
// of lower priorities takes the place of the last one of the lowest, which becomes a guest. A keyed hash from the
// caller identifies a client.
//
// Bounds: `queue_size` of the pool. In a full queue without such a guest the last one of the lowest priority is pushed
// out for a newcomer of a higher priority. A guest pushes out only guests.
//
// Ownership: intrusive, so that joining and leaving allocate nothing. A waiter leaves before it is destroyed.
// Threads: the worker's.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "conf/model/route.h"
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
    // True if the waiter has lost its place to another waiter, and has not called leave() since.
    bool is_pushed_out() const { return pushed_out_; }
    Transaction& transaction() const { return *transaction_; }

   private:
    friend class WaitQueue;
    Transaction* const transaction_;
    struct Links {
      Waiter* before = nullptr;
      Waiter* after = nullptr;
    };
    WaitQueue* queue_ = nullptr;
    Links in_order_;       // in the list of its priority
    Links of_client_;      // in the list of its client, for its priority
    uint64_t number_ = 0;  // in the order of arrival
    size_t client_ = 0;
    QueuePriority priority_ = QueuePriority::normal;
    bool guest_ = false;
    bool picky_ = false;
    bool pushed_out_ = false;
  };
  struct Joined {
    bool joined;
    Waiter* pushed_out = nullptr;  // lost its place; the caller wakes it
    explicit operator bool() const { return joined; }
  };

  // Adds a waiter at the end of its list. The waiter does not join if the queue already has `most` waiters and none of
  // them gives way. `picky`: the waiter cannot use every backend.
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
  template <Waiter::Links Waiter::*links>
  struct List {
    Waiter* first = nullptr;
    Waiter* last = nullptr;
    // Before `next`; at the end if that is null.
    void insert(Waiter& waiter, Waiter* next) {
      Waiter* const before = next != nullptr ? (next->*links).before : last;
      waiter.*links = {before, next};
      (before != nullptr ? (before->*links).after : first) = &waiter;
      (next != nullptr ? (next->*links).before : last) = &waiter;
    }
    void append(Waiter& waiter) { insert(waiter, nullptr); }
    void remove(Waiter& waiter) {
      const auto [before, after] = waiter.*links;
      (before != nullptr ? (before->*links).after : first) = after;
      (after != nullptr ? (after->*links).before : last) = before;
    }
  };
  using InOrder = List<&Waiter::in_order_>;
  using OfClient = List<&Waiter::of_client_>;
  static constexpr size_t kPriorities = static_cast<size_t>(QueuePriority::high) + 1;
  // Each list is in the order of arrival.
  struct Client {
    uint32_t in_share = 0;  // the number of waiters that are no guests
    std::array<OfClient, kPriorities> share, guests;
  };

  // Lists with a higher index go first.
  static size_t index_of(size_t priority, bool guest) { return 2 * priority + (guest ? 0 : 1); }
  static size_t level_of(const Waiter& waiter) { return static_cast<size_t>(waiter.priority_); }
  InOrder& list_of(const Waiter& waiter) { return lists_[index_of(level_of(waiter), waiter.guest_)]; }
  OfClient& client_list_of(const Waiter& waiter) {
    Client& client = clients_[waiter.client_];
    return (waiter.guest_ ? client.guests : client.share)[level_of(waiter)];
  }
  static Waiter* last_below(const Client& client, QueuePriority priority);
  static Waiter* first_guest(const Client& client);
  Waiter* next(bool for_all) const;
  Waiter* gives_way_to(const Waiter& newcomer) const;
  void add(Waiter& waiter);
  void remove(Waiter& waiter);
  void make_guest(Waiter& waiter);
  void promote_guest(const Client& client);

  std::array<InOrder, 2 * kPriorities> lists_{};
  uint64_t arrivals_ = 0;
  uint64_t turns_ = 0;  // how many were taken
  uint32_t size_ = 0;
  std::array<Client, kQueueClients> clients_{};
};

}  // namespace tidegate::l7
