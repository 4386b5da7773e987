// SPDX-License-Identifier: Apache-2.0
// BackendConnections: one worker's connections to all backends. An HTTP/1 connection is idle or serves one exchange.
// The connection that became idle last is used first. So few connections stay in use and the others time out. HTTP/2
// connections are shared. The first connection with room is used, so later ones become empty and time out.
//
// Threads: the worker's.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "conf/model/pool.h"
#include "core/metrics.h"
#include "l7/backend/h1_connection.h"
#include "l7/backend/h2_connection.h"
#include "l7/backend/pool_runtime.h"
#include "l7/h2/session_memory.h"

namespace tidegate::l7 {

class BackendConnections {
 public:
  struct Hooks {
    // Called when a connection finds no free descriptor: closes something else of this process. Returns false if it
    // cannot.
    std::function<bool()> free_a_descriptor;
    // A backend of that pool (PoolRuntime::id) has room for one more exchange. The callback must not use the room at
    // once.
    std::function<void(uint32_t pool)> on_room;
    Counter* http2_connections;     // connections that speak HTTP/2
    Counter* goaways;               // received GOAWAY frames
    MemoryBudget* memory;           // budget from which windows may grow
    SessionBlocks* session_blocks;  // memory of HTTP/2 sessions and streams
  };
  BackendConnections(EventLoop& loop, BlockPool& blocks, Hooks hooks)
      : loop_(loop), blocks_(blocks), hooks_(std::move(hooks)) {}
  ~BackendConnections();

  // A kept connection to exactly that peer, or a stream of a shared one; or null. `must_be_alive`: only a connection
  // whose socket was checked just now.
  std::unique_ptr<BackendStream> take_idle(const BackendRuntime& backend, const BackendPeer& peer, bool must_be_alive);
  // The backend has said that it opens no tunnels over HTTP/2.
  bool refuses_http2_tunnels(const BackendRuntime& backend) const {
    return backend.id < slots_.size() && slots_[backend.id].no_http2_tunnels;
  }
  // True if the backend may have one more exchange: it has fewer than `max_connections` connections, or one of them is
  // idle or has room. `past_accepted`: ignores the bound of note_not_accepted().
  bool has_room(const BackendRuntime& backend, uint32_t max_connections, bool past_accepted = false) const;
  // A new connection, which is connecting. An idle one is closed to make room for it. Null at `max_connections`. If
  // there is no free descriptor, the connection fails with out_of_sockets.
  std::unique_ptr<BackendStream> open(const BackendRuntime& backend, const BackendPeer& peer, uint32_t max_connections,
                                      bool past_accepted = false);
  // The `ordinal`-th open connection to the backend was not accepted, because the queue of its kernel is full. From now
  // on the backend gets as many connections as it has acknowledged, or half of `ordinal` if that is more. Further
  // requests wait, as at `max_connections`. Returns true if this state begins.
  bool note_not_accepted(const BackendRuntime& backend, uint32_t ordinal);
  // The number of open connections to the backend, including idle ones.
  uint32_t open_to(const BackendRuntime& backend) const {
    return backend.id < slots_.size() ? slots_[backend.id].open : 0;
  }
  // The bound of note_not_accepted() for connections to the backend. UINT32_MAX: no bound.
  uint32_t most_accepted(const BackendRuntime& backend) const {
    return backend.id < slots_.size() ? slots_[backend.id].most : UINT32_MAX;
  }
  void close_all_idle();
  void close_idle(uint32_t backend);
  // Closes one idle connection to any backend. Returns false if there is none.
  bool drop_one_idle();

  // --- for the connections
  // Takes a connection after an exchange. It is kept if it may serve another exchange, else closed. Safe from within
  // the connection's own callback.
  void take_back(std::unique_ptr<BackendH1Connection> connection, const Pool& pool);
  void drop_idle(BackendH1Connection* connection);
  // Ends the connection, even with exchanges in progress. Safe from within its own callback.
  void drop_http2(BackendH2Connection* connection);
  // Call it when the connection's socket was given to HTTP/1.
  void forget_http2(BackendH2Connection* connection);
  // Notes the protocol that TLS chose. Exchanges may share a connection that is still being made only if it will be
  // HTTP/2.
  void note_protocol(uint32_t backend, bool http2);
  // Notes whether the backend's SETTINGS allow tunnels over HTTP/2. The last SETTINGS count.
  void note_tunnels(uint32_t backend, bool allowed) { slot(backend).no_http2_tunnels = !allowed; }
  // The backend's kernel has acknowledged a connection.
  void note_acknowledged(uint32_t backend);
  void note_room(uint32_t backend) { hooks_.on_room(slot(backend).pool); }
  MemoryBudget& memory() { return *hooks_.memory; }
  SessionBlocks& session_blocks() { return *hooks_.session_blocks; }
  void count_goaway() { hooks_.goaways->add(); }
  void call_at_round_end(BackendH2Connection& connection);

 private:
  struct Slot {
    std::vector<std::unique_ptr<BackendH1Connection>> idle;
    std::vector<std::unique_ptr<BackendH2Connection>> http2;
    uint32_t open = 0;  // includes idle ones and HTTP/2
    uint32_t pool = 0;  // PoolRuntime::id
    // Set while connections are not accepted, see note_not_accepted().
    uint32_t most = UINT32_MAX;
    uint32_t too_many = 0;      // the largest number of connections at which a new one was not accepted
    uint32_t acknowledged = 0;  // how many of `open` are acknowledged, as far as they were checked
    uint32_t ended = 0;         // exchanges since `most` was changed, while that many were open
    bool speaks_http2 = false;
    bool no_http2_tunnels = false;
  };
  Slot& slot(uint32_t backend);
  static void count_ended(Slot& s);
  bool drop_one_idle(Slot& s);
  void bury(std::unique_ptr<BackendH1Connection> connection);
  void bury_http2(BackendH2Connection* connection);
  void empty_graves();
  void defer_round_end();
  void end_round();
  UniqueFd open_socket(const BackendAddress& address);

  EventLoop& loop_;
  BlockPool& blocks_;
  const Hooks hooks_;
  std::vector<Slot> slots_;                                   // by BackendRuntime::id
  std::vector<std::unique_ptr<BackendH1Connection>> buried_;  // kept until the end of the loop's round
  std::vector<std::unique_ptr<BackendH2Connection>> buried_http2_;
  std::vector<BackendH2Connection*> at_round_end_;
  bool round_end_deferred_ = false;
};

}  // namespace tidegate::l7
