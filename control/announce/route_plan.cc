// SPDX-License-Identifier: Apache-2.0
#include "control/announce/route_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "conf/model/node.h"
#include "conf/model/site.h"
#include "conf/plane_health.h"
#include "conf/vip_holder.h"
#include "control/limits.h"

namespace tidegate {

namespace {

const Override* find_override(const LiveState& live_state, const std::string& key) {
  const auto found = live_state.overrides.find(key);
  return found == live_state.overrides.end() ? nullptr : &found->second;
}

std::string words_of(const Override& record) {
  std::string words = record.state == OverrideState::down ? "taken down" : "drained";
  if (!record.by.empty()) words += " by " + record.by;
  if (!record.note.empty()) words += ": " + record.note;
  return words;
}

bool another_forwarder_is_up(const Forwarders& forwarders, const std::vector<NodeStatus>& planes, uint32_t vip,
                             uint32_t node) {
  const std::vector<uint32_t>& all = forwarders.of(vip);
  return std::any_of(all.begin(), all.end(), [&](uint32_t other) {
    constexpr auto kL4 = static_cast<size_t>(PlaneKind::l4);
    return other != node && (planes.empty() || planes[other].planes[kL4].state == BackendState::up);
  });
}

// Why the forwarder attracts no traffic to the VIP. Empty if it does.
std::string why_not(const Forwarders& forwarders, const LiveState& live_state, const std::vector<NodeStatus>& planes,
                    uint32_t vip, uint32_t node, const HealthVerdict& own) {
  const Model& model = forwarders.model();
  const Vip& of = model.vips[vip];
  if (const Override* record = find_override(live_state, vip_key(of.name))) return "the vip is " + words_of(*record);
  if (of.site != kNone) {
    const Override* const record = find_override(live_state, site_key(model.sites[of.site].name));
    if (record != nullptr && record->state == OverrideState::down) return "the site is " + words_of(*record);
  }
  if (const Override* record = find_override(live_state, plane_key(model.nodes[node].name, "l4"))) {
    return record->state == OverrideState::up ? "" : "the forwarder is " + words_of(*record);
  }
  if (own.up) return {};
  if (own.drains && !another_forwarder_is_up(forwarders, planes, vip, node)) return {};
  return "the forwarder: " + own.reason;
}

std::optional<IpAddress> address_of_forwarder(const Node& node, IpAddress::Family family) {
  for (const L4Port& port : node.l4.ports) {
    for (const auto& [address, prefix] : port.addresses) {
      if (address.family == family) return address;
    }
  }
  return std::nullopt;
}

}  // namespace

std::vector<AnnouncedAddress> plan_announcements(const Model& model, const LiveState& live_state,
                                                 const std::string& node, const HealthVerdict& own) {
  std::vector<AnnouncedAddress> out;
  uint32_t n = 0;
  while (n < model.nodes.size() && model.nodes[n].name != node) ++n;
  if (n == model.nodes.size() || !model.nodes[n].l4.enabled) return out;
  const std::vector<NodeStatus> planes = plane_states(model, live_state);
  const Forwarders forwarders(model);
  for (uint32_t vip = 0; vip < model.vips.size(); ++vip) {
    const std::vector<uint32_t>& all = forwarders.of(vip);
    if (!std::binary_search(all.begin(), all.end(), n)) continue;
    const std::string why = why_not(forwarders, live_state, planes, vip, n, own);
    for (const IpAddress& address : model.vips[vip].addresses) {
      if (out.size() == kMaxAnnouncedAddresses) return out;
      std::string reason = why;
      if (const uint32_t holder = holder_of(forwarders, planes, vip, address);
          reason.empty() && holder != kNone && holder != n)
        reason = "the forwarder of node " + model.nodes[holder].name + " holds it";
      const bool announced = reason.empty();
      out.push_back({model.vips[vip].name, address, address_of_forwarder(model.nodes[n], address.family), announced,
                     std::move(reason)});
    }
  }
  return out;
}

std::string bird_protocol(const IpAddress& address) {
  std::string name = "tidegate";
  for (size_t i = 0; i < address.size(); ++i) {
    name += address.is_v4() ? fmt::format("_{}", address.bytes[i])
                            : fmt::format("{}{:02x}", i == 0 ? "_" : "", address.bytes[i]);
  }
  return name;
}

std::string bird_file(const std::vector<AnnouncedAddress>& addresses) {
  std::string text =
      "# Written by tidegate-control, and written anew with each decision. bird.conf includes it; changes here are "
      "lost.\n";
  for (const AnnouncedAddress& each : addresses) {
    text += fmt::format("protocol static {} {{ {}; disabled {}; route {}/{} blackhole", bird_protocol(each.address),
                        each.address.is_v4() ? "ipv4" : "ipv6", each.announced ? "no" : "yes", each.address.to_string(),
                        each.address.max_prefix());
    if (each.next_hop) text += fmt::format(" {{ bgp_next_hop = {}; }}", each.next_hop->to_string());
    text += "; }\n";
  }
  return text;
}

}  // namespace tidegate
