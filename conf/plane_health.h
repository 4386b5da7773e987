// SPDX-License-Identifier: Apache-2.0
// PlaneHealth: the meaning of records about planes ("plane/<node>/<plane>"). A plane without a record is up. An
// override of the plane counts more than control's verdict. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/snapshot.h"

namespace tidegate {

bool runs(const Node& node, PlaneKind kind);

// The state of each node's planes, parallel to Model::nodes. Empty if no record says anything about a plane.
std::vector<NodeStatus> plane_states(const Model& model, const LiveState& live_state);

// Forwarders: the nodes that have the forwarders of a VIP: the nodes of its site, or all nodes if it has no site. Made
// once for many VIPs. The model must outlive it.
class Forwarders {
 public:
  explicit Forwarders(const Model& model);

  const Model& model() const { return model_; }
  // The nodes' indexes, ascending.
  const std::vector<uint32_t>& of(uint32_t vip) const;

 private:
  const Model& model_;
  std::vector<uint32_t> all_;
  std::vector<std::vector<uint32_t>> of_sites_;
};

// The plane of its node that serves as this backend. The ports of the pool determine it. Nothing if the ports belong to
// neither the proxy nor the name server of the node.
std::optional<PlaneKind> plane_of_backend(const Model& model, uint32_t pool, const Backend& backend);

// "no forwarder of the vip is up: l4 of node a: its process is gone". Empty if one is up, or if the VIP has none.
// `forwarders`: of the snapshot's model.
std::string forwarder_trouble(const Snapshot& snapshot, const Forwarders& forwarders, uint32_t vip);
// True if the VIP has forwarders and an override takes each of them out of service.
bool forwarders_are_out(const Snapshot& snapshot, const Forwarders& forwarders, uint32_t vip);

}  // namespace tidegate
