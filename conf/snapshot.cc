// SPDX-License-Identifier: Apache-2.0
#include "conf/snapshot.h"

#include <algorithm>

#include "conf/backend_names.h"
#include "conf/found_backends.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/plane_health.h"

namespace tidegate {
namespace {

template <class Record>
const Record* find(const std::map<std::string, Record>& records, const std::string& key) {
  const auto found = records.find(key);
  return found == records.end() ? nullptr : &found->second;
}

// Combines what several records say about one backend: the worst state counts, and every reason is kept.
void combine(BackendStatus& status, BackendState state, const std::string& why) {
  status.state = std::max(status.state, state);
  if (why.empty()) return;
  if (!status.why.empty()) status.why += "; ";
  status.why += why;
}

void apply_override(BackendStatus& status, const Override& record, const char* whose) {
  const bool down = record.state == OverrideState::down;
  std::string why = std::string(whose) + (down ? "taken down" : "drained");
  if (!record.by.empty()) why += " by " + record.by;
  if (!record.note.empty()) why += ": " + record.note;
  status.admin = true;
  status.taken_down |= down;
  combine(status, down ? BackendState::down : BackendState::draining, why);
}

// The records about the pool as a whole, without those about its backends.
struct PoolRecords {
  const Override* admin = nullptr;
  bool probed = false;       // the pool has a probe, and somebody probes (the version is not 0)
  bool any_verdict = false;  // there is a verdict for at least one of its backends
  bool looked_up = false;    // control looks up the names of its backends
};

PoolRecords gather(const Snapshot& snapshot, const Pool& pool, bool looked_up) {
  PoolRecords out;
  out.looked_up = looked_up && snapshot.version != 0;
  out.admin = find(snapshot.live_state->overrides, pool_key(pool.name));
  out.probed = pool.probe != kNone && snapshot.version != 0;
  if (!out.probed) return out;
  for (const Backend& backend : pool.backends) {
    if (find(snapshot.live_state->health, backend_key(pool.name, backend.name)) != nullptr) out.any_verdict = true;
  }
  return out;
}

// Applies what records say about the plane that this backend is.
void apply_plane(BackendStatus& status, const Snapshot& snapshot, uint32_t pool, const Backend& backend) {
  if (snapshot.nodes.empty() || backend.node == kNone) return;
  const std::optional<PlaneKind> kind = plane_of_backend(*snapshot.model, pool, backend);
  if (!kind) return;
  const BackendStatus& plane = snapshot.plane(backend.node, *kind);
  if (plane.state == BackendState::up) return;
  status.admin |= plane.admin;
  status.taken_down |= plane.taken_down;
  combine(status, plane.state,
          std::string(name(*kind)) + " of node " + snapshot.model->nodes[backend.node].name + ": " + plane.why);
}

// Why the lookup of a backend's name found no server.
std::string lookup_trouble(const Snapshot& snapshot, const Backend& backend) {
  const FoundName* const found = find_name(&snapshot.live_state->names, backend);
  const std::string trouble = found == nullptr ? "not looked up yet" : found->trouble;
  return name_key(backend) + ": " + (trouble.empty() ? "no address" : trouble);
}

BackendStatus backend_status(const Snapshot& snapshot, uint32_t index, const PoolRecords& of_pool,
                             const Backend& backend) {
  BackendStatus status;
  const LiveState& live_state = *snapshot.live_state;
  const Pool& pool = snapshot.model->pools[index];
  const std::string key = backend_key(pool.name, backend.name);
  if (of_pool.looked_up && !name_key(backend).empty()) {
    combine(status, BackendState::down, lookup_trouble(snapshot, backend));
  } else if (of_pool.probed) {
    if (const HealthVerdict* verdict = find(live_state.health, key)) {
      if (!verdict->up) combine(status, BackendState::down, "probe: " + verdict->reason);
    } else {
      const bool trusted = !of_pool.any_verdict && pool.all_down == AllDown::open;
      combine(status, trusted ? BackendState::up : BackendState::down, "no verdict yet");
    }
  }
  apply_plane(status, snapshot, index, backend);
  if (const Override* record = find(live_state.overrides, key)) apply_override(status, *record, "");
  if (!backend.found_by.empty()) {
    const Override* of_name = find(live_state.overrides, backend_key(pool.name, backend.found_by));
    if (of_name != nullptr) apply_override(status, *of_name, "");
  }
  if (of_pool.admin != nullptr) apply_override(status, *of_pool.admin, "pool ");
  if (backend.weight == 0) {
    combine(status, BackendState::draining,
            backend.found_by.empty() ? "weight 0" : "weight 0, or its name no longer leads to it");
  }
  return status;
}

PoolStatus pool_status(const Snapshot& snapshot, uint32_t index, bool looked_up) {
  PoolStatus out;
  const Pool& pool = snapshot.model->pools[index];
  const PoolRecords of_pool = gather(snapshot, pool, looked_up);
  uint64_t weight = 0, weight_up = 0;
  bool any_left = false;
  for (const Backend& backend : pool.backends) {
    const BackendStatus& status = out.backends.emplace_back(backend_status(snapshot, index, of_pool, backend));
    weight += backend.weight;
    if (status.state == BackendState::up) weight_up += backend.weight;
    if (!status.admin && backend.weight > 0) any_left = true;
  }
  out.up = weight_up > 0 && static_cast<double>(weight_up) >= pool.up_threshold * static_cast<double>(weight);
  const bool panic =
      pool.panic_threshold > 0 && static_cast<double>(weight_up) < pool.panic_threshold * static_cast<double>(weight);
  out.fail_open = any_left && (panic || (weight_up == 0 && pool.all_down == AllDown::open));
  return out;
}

}  // namespace

const char* name(BackendState state) {
  switch (state) {
    case BackendState::up:
      return "up";
    case BackendState::draining:
      return "draining";
    case BackendState::down:
      return "down";
  }
  return "?";
}

const char* name(PlaneKind kind) {
  switch (kind) {
    case PlaneKind::l4:
      return "l4";
    case PlaneKind::l7:
      return "l7";
    case PlaneKind::dns:
      return "dns";
  }
  return "?";
}

const BackendStatus& Snapshot::plane(uint32_t node, PlaneKind kind) const {
  static const BackendStatus up;
  return nodes.empty() ? up : nodes[node].planes[static_cast<size_t>(kind)];
}

bool Snapshot::usable(uint32_t pool, uint32_t backend) const {
  const PoolStatus& status = pools[pool];
  if (model->pools[pool].backends[backend].weight == 0) return false;
  if (status.backends[backend].state == BackendState::up) return true;
  return status.fail_open && !status.backends[backend].admin;
}

std::shared_ptr<const Snapshot> make_snapshot(uint64_t version, std::string version_digest,
                                              std::shared_ptr<const Model> model,
                                              std::shared_ptr<const LiveState> live_state, const Snapshot* previous) {
  auto out = std::make_shared<Snapshot>();
  out->version = version;
  out->version_digest = std::move(version_digest);
  out->configured = std::move(model);
  out->live_state = std::move(live_state);
  const bool same_servers = previous != nullptr && previous->configured == out->configured &&
                            previous->live_state->names == out->live_state->names;
  out->model = same_servers ? previous->model : with_found_backends(out->configured, out->live_state->names);
  out->nodes = plane_states(*out->model, *out->live_state);
  const std::vector<uint32_t> looked_up = pools_looked_up(*out->configured);
  for (uint32_t p = 0; p < out->model->pools.size(); ++p) {
    out->pools.push_back(pool_status(*out, p, std::binary_search(looked_up.begin(), looked_up.end(), p)));
  }
  for (const Site& site : out->model->sites) {
    out->site_drained.push_back(find(out->live_state->overrides, site_key(site.name)) != nullptr);
  }
  for (size_t s = 0; s < out->model->sites.size() && !out->live_state->loads.empty(); ++s) {
    const SiteLoad* load = find(out->live_state->loads, site_key(out->model->sites[s].name));
    out->loads.push_back(load == nullptr ? SiteLoad() : *load);
  }
  const Forwarders forwarders(*out->model);
  for (uint32_t v = 0; v < out->model->vips.size(); ++v) {
    const Vip& vip = out->model->vips[v];
    const bool of_site = vip.site != kNone && out->site_drained[vip.site];
    const bool drained = of_site || find(out->live_state->overrides, vip_key(vip.name)) != nullptr ||
                         forwarders_are_out(*out, forwarders, v);
    out->vip_drained.push_back(drained);
    out->vip_up.push_back(!drained && forwarder_trouble(*out, forwarders, v).empty());
  }
  for (const Service& service : out->model->services) {
    if (!out->pools[service.pool].up) out->vip_up[service.vip] = false;
  }
  return out;
}

}  // namespace tidegate
