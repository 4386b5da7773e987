// SPDX-License-Identifier: Apache-2.0
// BackendConnections: one worker's connections to all backends. Idle ones are kept under the backend's id and taken
// again last in, first out, so that few stay warm and the others age out.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "conf/model.h"
#include "l7/backend/h1_connection.h"
#include "l7/backend/pool_runtime.h"

namespace tidegate::l7 {

class BackendConnections {
 public:
  struct Hooks {
    // Closes something else of the process's when a connection finds no descriptor; false: it cannot.
    std::function<bool()> free_a_descriptor;
    // A backend of that pool (PoolRuntime::id) has room for one more exchange. Takes nothing up at once.
    std::function<void(uint32_t pool)> on_room;
  };
  BackendConnections(EventLoop& loop, BlockPool& blocks, Hooks hooks)
      : loop_(loop), blocks_(blocks), hooks_(std::move(hooks)) {}

  // A kept connection to that very peer, or null. `must_be_alive`: one that a last look at the socket vouches for.
  std::unique_ptr<BackendStream> take_idle(const BackendRuntime& backend, const BackendPeer& peer, bool must_be_alive);
  // Whether it may have one more exchange: there are fewer connections than that, or one is idle.
  bool has_room(const BackendRuntime& backend, uint32_t max_connections) const {
    if (backend.id >= slots_.size()) return true;
    return slots_[backend.id].open < max_connections || !slots_[backend.id].idle.empty();
  }
  // A new one, connecting; an idle one makes room for it; null at `max_connections`. Without a descriptor for it, it
  // fails with out_of_sockets.
  std::unique_ptr<BackendStream> open(const BackendRuntime& backend, const BackendPeer& peer, uint32_t max_connections);
  void close_all_idle();
  void close_idle(uint32_t backend);
  // Closes one idle connection, of any backend; false: there is none.
  bool drop_one_idle();

  // --- for the connections
  // After an exchange: kept when it may serve another, else closed. Safe from within the connection's own callback.
  void take_back(std::unique_ptr<BackendH1Connection> connection, const Pool& pool);
  void drop_idle(BackendH1Connection* connection);

 private:
  struct Slot {
    std::vector<std::unique_ptr<BackendH1Connection>> idle;
    uint32_t open = 0;  // idle ones included
    uint32_t pool = 0;  // PoolRuntime::id
  };
  Slot& slot(uint32_t backend);
  void bury(std::unique_ptr<BackendH1Connection> connection);
  UniqueFd open_socket(const Endpoint& endpoint);

  EventLoop& loop_;
  BlockPool& blocks_;
  const Hooks hooks_;
  std::vector<Slot> slots_;                                   // by BackendRuntime::id
  std::vector<std::unique_ptr<BackendH1Connection>> buried_;  // until the end of the loop's round
};

}  // namespace tidegate::l7
