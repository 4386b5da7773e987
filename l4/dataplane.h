// SPDX-License-Identifier: Apache-2.0
// Dataplane: the running forwarder: ports, punt devices and workers. It is made when the first tables exist, because
// the configuration names the devices to open. It is made once more if the ports had been left to another process. Only
// the control thread may call it.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/node.h"
#include "core/result.h"
#include "l4/flow_key.h"
#include "l4/kept_state.h"
#include "l4/neighbour_board.h"
#include "l4/plan/forwarding.h"
#include "l4/port_watch.h"
#include "l4/worker.h"

namespace tidegate::l4 {

class Dataplane {
 public:
  // Opens everything and lets packets through. After an Error nothing is left open. EAL runs. `stock` is empty
  // afterwards. `kept` outlives it; null: flows end with the process.
  static Result<std::unique_ptr<Dataplane>> start(const L4Node& node, const FlowHasher& hasher,
                                                  std::shared_ptr<const ForwardingTables> tables, const KeptState* kept,
                                                  BufferStock& stock);
  ~Dataplane();  // stops the workers, closes the ports
  // Closes the ports as soon as possible, for another process that waits for them. After that only the destructor may
  // be called.
  void leave(BufferStock& spent);

  void publish(std::shared_ptr<const ForwardingTables> tables);
  const std::shared_ptr<const ForwardingTables>& tables() const { return publisher_.in_force(); }
  // Checks every port. Returns true if one stopped working or works again; then derive the tables again.
  bool check_ports();
  bool ports_are_unsettled() const { return watch_->is_unsettled(); }  // after check_ports()
  const std::vector<PortState>& port_states() const { return watch_->states(); }
  std::vector<AddressConflict> take_conflicts() { return conflicts_.take(); }
  const NeighbourBoard& neighbours() const { return neighbours_; }
  ProbeBoard& probes() { return probes_; }
  // Call it when orders wait at the board: it wakes the worker that sends them.
  void send_probes() { workers_.front()->wake(); }
  Outages outages() const;
  // The flow in the table of its worker, as it is now.
  std::optional<FlowEntry> find_flow(uint64_t hash) const;

  const std::vector<Port>& ports() const { return ports_; }
  const std::vector<std::unique_ptr<Worker>>& workers() const { return workers_; }

 private:
  explicit Dataplane(uint32_t workers) : publisher_(workers) {}
  Result<void> open(const L4Node& node, const FlowHasher& hasher, const KeptState* kept, BufferStock& stock);
  void launch();
  void stop_workers();
  bool leave_ports();

  std::vector<Port> ports_;
  std::vector<PuntDevice> punts_;
  std::unique_ptr<PortBoard> board_;
  std::unique_ptr<PortWatch> watch_;
  NeighbourBoard neighbours_;
  ConflictBoard conflicts_;
  ProbeBoard probes_;
  SharedBounds bounds_;
  Publisher publisher_;
  std::vector<std::unique_ptr<Worker>> workers_;
  bool launched_ = false;
};

}  // namespace tidegate::l4
