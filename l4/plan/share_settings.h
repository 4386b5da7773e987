// SPDX-License-Identifier: Apache-2.0
// ShareSettings: with whom a forwarder shares its flows. Every node of a site that has `l4.share_flows` is a peer of
// every other one.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "conf/fault.h"
#include "conf/model.h"

namespace tidegate::l4 {

struct ShareSettings {
  Endpoint listen;
  std::vector<Endpoint> peers;  // in the order of the nodes
  uint64_t rate = 0;            // most flows a second that each peer is told
  bool operator==(const ShareSettings&) const = default;
};

// Nothing if the node shares no flows.
std::optional<ShareSettings> share_settings(const Model& model, const Node& node);
// The nodes beyond kMaxSharingForwarders of a site, as faults. Pure: any thread.
void judge_sharing(const Model& model, std::vector<Fault>& faults);

}  // namespace tidegate::l4
