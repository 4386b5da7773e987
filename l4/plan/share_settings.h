// SPDX-License-Identifier: Apache-2.0
// ShareSettings: the other forwarders with which a forwarder shares its flows. Every node of a site that has
// `l4.share_flows` is a peer of every other one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "conf/fault.h"
#include "conf/model.h"
#include "conf/model/node.h"

namespace tidegate::l4 {

struct ShareSettings {
  Endpoint listen;
  std::vector<Endpoint> peers;  // in the order of the nodes
  uint64_t rate = 0;            // most flows per second that are reported to each peer
  bool operator==(const ShareSettings&) const = default;
};

// The settings of a node. Nothing if the node shares no flows.
std::optional<ShareSettings> share_settings(const Model& model, const Node& node);
// Faults for nodes beyond the kMaxSharingForwarders of a site. Pure: any thread.
void judge_sharing(const Model& model, std::vector<Fault>& faults);

}  // namespace tidegate::l4
