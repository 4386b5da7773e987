// BackendConnections: one worker's connections to all backends. Idle ones are kept under the backend's id and taken
// again last in, first out, so that few stay warm and the others age out.
#pragma once

#include <memory>
#include <vector>

#include "conf/model.h"
#include "l7/backend_connection.h"
#include "l7/pool_runtime.h"

namespace tidegate::l7 {

class BackendConnections {
 public:
  BackendConnections(EventLoop& loop, BlockPool& blocks) : loop_(loop), blocks_(blocks) {}

  // A kept connection to that very peer, or null. `must_be_alive`: one that a last look at the socket vouches for.
  std::unique_ptr<BackendConnection> take_idle(const BackendRuntime& backend, const BackendPeer& peer,
                                               bool must_be_alive);
  // A new one, connecting; null at `max_connections`.
  std::unique_ptr<BackendConnection> open(const BackendRuntime& backend, const BackendPeer& peer,
                                          uint32_t max_connections);
  // After an exchange: kept when it may serve another, else closed. Safe from within the connection's own callback.
  void give_back(std::unique_ptr<BackendConnection> connection, const Pool& pool);
  void drop_idle(BackendConnection* connection);
  void close_all_idle();

 private:
  struct Slot {
    std::vector<std::unique_ptr<BackendConnection>> idle;
    uint32_t open = 0;  // idle ones included
  };
  Slot& slot(uint32_t backend);
  void bury(std::unique_ptr<BackendConnection> connection);

  EventLoop& loop_;
  BlockPool& blocks_;
  std::vector<Slot> slots_;                                 // by BackendRuntime::id
  std::vector<std::unique_ptr<BackendConnection>> buried_;  // until the end of the loop's round
};

}  // namespace tidegate::l7
