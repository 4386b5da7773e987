// SPDX-License-Identifier: Apache-2.0
#include "conf/plane_health.h"

#include <algorithm>

#include "conf/model/listener.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

namespace tidegate {
namespace {

bool says_anything(const LiveState& live_state) {
  const std::string prefix = "plane/";
  const auto has = [&](const auto& records) {
    const auto first = records.lower_bound(prefix);
    return first != records.end() && first->first.compare(0, prefix.size(), prefix) == 0;
  };
  return has(live_state.health) || has(live_state.overrides);
}

std::string words_of(const Override& record, const char* what) {
  std::string words = what;
  if (!record.by.empty()) words += " by " + record.by;
  if (!record.note.empty()) words += ": " + record.note;
  return words;
}

BackendStatus plane_state(const LiveState& live_state, const std::string& key) {
  BackendStatus status;
  if (const auto record = live_state.overrides.find(key); record != live_state.overrides.end()) {
    const OverrideState state = record->second.state;
    if (state == OverrideState::up) {
      status.why = words_of(record->second, "kept in service");
      return status;
    }
    status.admin = true;
    status.taken_down = state == OverrideState::down;
    status.state = status.taken_down ? BackendState::down : BackendState::draining;
    status.why = words_of(record->second, status.taken_down ? "taken down" : "drained");
    return status;
  }
  const auto verdict = live_state.health.find(key);
  if (verdict == live_state.health.end() || verdict->second.up) return status;
  status.state = verdict->second.drains ? BackendState::draining : BackendState::down;
  status.why = verdict->second.reason;
  return status;
}

bool listens_at(const std::vector<Endpoint>& endpoints, uint16_t port) {
  return std::any_of(endpoints.begin(), endpoints.end(), [&](const Endpoint& each) { return each.port == port; });
}

bool name_server_has(const Node& node, uint16_t port) {
  return node.dns.enabled && (listens_at(node.dns.listen, port) || listens_at(node.dns.httpdns_listen, port));
}

bool proxy_has(const Model& model, const Node& node, uint16_t port) {
  return node.l7.enabled && std::any_of(model.listeners.begin(), model.listeners.end(), [&](const Listener& listener) {
           return (listener.site == kNone || listener.site == node.site) && listens_at(listener.bind, port);
         });
}

}  // namespace

bool runs(const Node& node, PlaneKind kind) {
  switch (kind) {
    case PlaneKind::l4:
      return node.l4.enabled;
    case PlaneKind::l7:
      return node.l7.enabled;
    case PlaneKind::dns:
      return node.dns.enabled;
  }
  return false;
}

std::vector<NodeStatus> plane_states(const Model& model, const LiveState& live_state) {
  if (!says_anything(live_state)) return {};
  std::vector<NodeStatus> nodes(model.nodes.size());
  for (size_t n = 0; n < model.nodes.size(); ++n) {
    for (const PlaneKind kind : kPlaneKinds) {
      if (!runs(model.nodes[n], kind)) continue;
      nodes[n].planes[static_cast<size_t>(kind)] = plane_state(live_state, plane_key(model.nodes[n].name, name(kind)));
    }
  }
  return nodes;
}

Forwarders::Forwarders(const Model& model) : model_(model), of_sites_(model.sites.size()) {
  for (uint32_t n = 0; n < model.nodes.size(); ++n) {
    const Node& node = model.nodes[n];
    if (!node.l4.enabled) continue;
    all_.push_back(n);
    if (node.site != kNone) of_sites_[node.site].push_back(n);
  }
}

const std::vector<uint32_t>& Forwarders::of(uint32_t vip) const {
  const uint32_t site = model_.vips[vip].site;
  return site == kNone ? all_ : of_sites_[site];
}

std::optional<PlaneKind> plane_of_backend(const Model& model, uint32_t pool, const Backend& backend) {
  if (backend.node == kNone) return std::nullopt;
  const Node& node = model.nodes[backend.node];
  const auto plane_at = [&](uint16_t port) -> std::optional<PlaneKind> {
    if (name_server_has(node, port)) return PlaneKind::dns;
    if (proxy_has(model, node, port)) return PlaneKind::l7;
    return std::nullopt;
  };
  if (backend.port != 0) return plane_at(backend.port);
  // The backend of a forwarder is reached at the ports of the services that use its pool.
  for (const Service& service : model.services) {
    if (service.pool != pool) continue;
    if (const std::optional<PlaneKind> plane = plane_at(service.port)) return plane;
  }
  return std::nullopt;
}

std::string forwarder_trouble(const Snapshot& snapshot, const Forwarders& forwarders, uint32_t vip) {
  if (snapshot.nodes.empty()) return {};
  std::string trouble;
  for (const uint32_t node : forwarders.of(vip)) {
    const BackendStatus& status = snapshot.plane(node, PlaneKind::l4);
    if (status.state == BackendState::up) return {};
    trouble += (trouble.empty() ? "no forwarder of the vip is up: l4 of node " : "; l4 of node ") +
               snapshot.model->nodes[node].name + ": " + status.why;
  }
  return trouble;
}

bool forwarders_are_out(const Snapshot& snapshot, const Forwarders& forwarders, uint32_t vip) {
  if (snapshot.nodes.empty()) return false;
  const std::vector<uint32_t>& nodes = forwarders.of(vip);
  return !nodes.empty() && std::all_of(nodes.begin(), nodes.end(),
                                       [&](uint32_t node) { return snapshot.plane(node, PlaneKind::l4).admin; });
}

}  // namespace tidegate
