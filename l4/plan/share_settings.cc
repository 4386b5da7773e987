// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/share_settings.h"

#include <fmt/format.h>

#include <map>

#include "l4/limits.h"

namespace tidegate::l4 {
namespace {

bool shares_flows(const Node& node) { return node.l4.enabled && node.l4.share_flows.has_value(); }

}  // namespace

std::optional<ShareSettings> share_settings(const Model& model, const Node& node) {
  if (!shares_flows(node)) return std::nullopt;
  ShareSettings settings{*node.l4.share_flows, {}, node.l4.share_flows_rate};
  for (const Node& other : model.nodes) {
    if (other.name == node.name || other.site != node.site || !shares_flows(other)) continue;
    settings.peers.push_back(*other.l4.share_flows);
  }
  return settings;
}

void judge_sharing(const Model& model, std::vector<Fault>& faults) {
  std::map<uint32_t, size_t> of_site;
  for (size_t n = 0; n < model.nodes.size(); ++n) {
    const Node& node = model.nodes[n];
    if (!shares_flows(node) || ++of_site[node.site] <= kMaxSharingForwarders) continue;
    add_fault(faults, {"too_many_forwarders",
                       fmt::format("/nodes/{}/l4/share_flows", n),
                       {},
                       0,
                       0,
                       fmt::format("node '{}' is one more than {} forwarders of its site that share flows", node.name,
                                   kMaxSharingForwarders),
                       {},
                       {}});
  }
}

}  // namespace tidegate::l4
