// SPDX-License-Identifier: Apache-2.0
// Admission: which new client connection a worker takes, and which old one makes room for it.
//
// Bounds: the connections of all workers, the connections and new connections of one client address, and descriptors.
// At a bound, the connection that is idle longest is closed. Idle means: between requests, in a handshake, before its
// first whole request head, or answered and lingering. The new connection is refused only if none is idle.
//
// Threads: any thread may use AdmissionShared. Only its worker may use an Admission. "Idle longest" means among the
// connections of this worker. If it has no idle connection, another worker is asked to close one.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <vector>

#include "conf/model/node.h"
#include "core/address_table.h"
#include "core/event_loop.h"
#include "core/idle_list.h"
#include "l7/observe/stats.h"

namespace tidegate::l7 {

class Admission;
class ClientConnection;

// What the workers of a process share.
struct AdmissionShared {
  explicit AdmissionShared(const HashKey& key);
  void configure(const L7Node& node);
  TokenRate rate() const;
  // The bounds of an address that has `connections` open connections.
  struct AddressView {
    uint32_t connections = 0, most_connections = 0;
    uint64_t new_connections_left = 0;
  };
  AddressView look(const IpAddress& address, uint64_t now_ns) const;

  AddressTable addresses;
  std::atomic<uint64_t> connections{0};
  std::atomic<uint64_t> max_connections{UINT64_MAX};
  std::atomic<uint32_t> per_address{AddressTable::kNoBound};
  std::atomic<uint64_t> rate_interval_ns{0}, burst{1};
  std::vector<Admission*> workers;  // complete before the first worker runs
};

class Admission {
 public:
  // `drop_idle_backend` closes a kept connection to a backend to free its descriptor. It returns false if there is
  // none.
  Admission(AdmissionShared& shared, Stats& stats, EventLoop& loop, std::function<bool()> drop_idle_backend)
      : shared_(shared), stats_(stats), loop_(loop), drop_idle_backend_(std::move(drop_idle_backend)) {
    shared_.workers.push_back(this);
  }

  struct Newcomer {
    int fd;
    const IpAddress& address;
    uint64_t now_ns;
  };
  // Whether the newcomer's address may have one more connection. `hold` then holds it.
  ConnectionRefusal admit_address(const Newcomer& newcomer, AddressTable::Hold& hold);
  // Whether the worker may have one more connection, from any address. After `none` the connection counts, until
  // leave().
  ConnectionRefusal admit(const Newcomer& newcomer);
  void leave() { shared_.connections.fetch_sub(1, std::memory_order_relaxed); }
  // Charges the address as much as `tokens` new connections would cost.
  void charge(const IpAddress& address, uint64_t tokens);

  // Called by connections: whether they may be closed to make room. A connection that was idle before keeps its place.
  void note_idle(ClientConnection& connection);
  void note_busy(ClientConnection& connection);
  // Closes the connection that is idle longest. Returns false if none is idle.
  bool recycle_one();

 private:
  bool recycle_of(const IpAddress& address);
  bool recycle_elsewhere();
  void recycle(ClientConnection& connection);
  void publish_idle() { idle_count_.store(idle_.size(), std::memory_order_relaxed); }

  AdmissionShared& shared_;
  Stats& stats_;
  EventLoop& loop_;
  const std::function<bool()> drop_idle_backend_;
  IdleList<ClientConnection> idle_;
  alignas(64) std::atomic<uint64_t> idle_count_{0};  // read by the other workers
  // how many connections other workers asked this one to close, and it has not closed yet
  std::atomic<uint64_t> asked_{0};
};

}  // namespace tidegate::l7
