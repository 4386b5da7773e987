// SPDX-License-Identifier: Apache-2.0
#include "conf/vip_holder.h"

#include <algorithm>

#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/site.h"

namespace tidegate {
namespace {

bool is_on_a_link(const L4Node& node, const IpAddress& address) {
  return std::any_of(node.ports.begin(), node.ports.end(), [&](const L4Port& port) {
    return std::any_of(port.addresses.begin(), port.addresses.end(),
                       [&](const auto& own) { return Cidr::of(own.first, own.second).contains(address); });
  });
}

}  // namespace

uint32_t holder_of(const Forwarders& forwarders, const std::vector<NodeStatus>& planes, uint32_t vip,
                   const IpAddress& address) {
  constexpr auto kL4 = static_cast<size_t>(PlaneKind::l4);
  size_t candidates = 0;
  uint32_t first = kNone, first_up = kNone, first_draining = kNone;
  const auto take = [](uint32_t& place, uint32_t node) {
    if (place == kNone) place = node;
  };
  for (const uint32_t node : forwarders.of(vip)) {
    if (!is_on_a_link(forwarders.model().nodes[node].l4, address)) continue;
    ++candidates;
    take(first, node);
    const BackendState state = node < planes.size() ? planes[node].planes[kL4].state : BackendState::up;
    if (state == BackendState::up) take(first_up, node);
    if (state == BackendState::draining) take(first_draining, node);
  }
  if (candidates < 2) return kNone;
  if (first_up != kNone) return first_up;
  return first_draining != kNone ? first_draining : first;
}

bool stands_by(const Forwarders& forwarders, const std::vector<NodeStatus>& planes, uint32_t node, uint32_t vip,
               const IpAddress& address) {
  const uint32_t holder = holder_of(forwarders, planes, vip, address);
  return holder != kNone && holder != node;
}

std::string holder_name(const Snapshot& snapshot, const IpAddress& address) {
  const Model& model = *snapshot.model;
  for (uint32_t vip = 0; vip < model.vips.size(); ++vip) {
    const std::vector<IpAddress>& addresses = model.vips[vip].addresses;
    if (std::find(addresses.begin(), addresses.end(), address) == addresses.end()) continue;
    const uint32_t holder = holder_of(Forwarders(model), snapshot.nodes, vip, address);
    return holder == kNone ? std::string() : model.nodes[holder].name;
  }
  return {};
}

}  // namespace tidegate
