// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/health.h"

#include <string_view>

#include "conf/found_backends.h"
#include "conf/model/node.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"

namespace tidegate::dns {
namespace {

bool is_drained(const Snapshot& snapshot, const Backend& backend) {
  const Model& model = *snapshot.model;
  const uint32_t site = backend.node == kNone ? kNone : model.nodes[backend.node].site;
  return site != kNone && snapshot.site_drained[site];
}

// There are few overrides of targets. Each is searched for among the steers.
void apply_target_overrides(const Snapshot& snapshot, const HealthLayout& layout, Health& flags) {
  constexpr std::string_view kPrefix = "target/";
  const Model& model = *snapshot.model;
  const auto& overrides = snapshot.live_state->overrides;
  for (auto at = overrides.lower_bound(std::string(kPrefix)); at != overrides.end(); ++at) {
    const std::string& key = at->first;
    if (key.compare(0, kPrefix.size(), kPrefix) != 0) return;
    for (uint32_t s = 0; s < model.steers.size(); ++s) {
      const Steer& steer = model.steers[s];
      const std::string_view name = std::string_view(steer.name).substr(0, steer.name.size() - 1);
      if (key.compare(kPrefix.size(), name.size(), name) != 0) continue;
      for (uint32_t t = 0; t < steer.targets.size(); ++t) {
        if (key == target_key(steer.name, target_label(model, steer.targets[t]))) flags[layout.of_target(s, t)] = 0;
      }
    }
  }
}

}  // namespace

HealthLayout::HealthLayout(const Model& model) {
  auto next = static_cast<uint32_t>(model.vips.size());
  for (const Pool& pool : model.pools) {
    first_of_pool_.push_back(next);
    next += static_cast<uint32_t>(pool.backends.size());
  }
  for (const Steer& steer : model.steers) {
    first_of_steer_.push_back(next);
    next += static_cast<uint32_t>(steer.targets.size());
  }
  size_ = next;
}

Health compile_health(const Snapshot& snapshot) {
  const Model& model = *snapshot.model;
  const HealthLayout layout(model);
  Health flags;
  flags.reserve(layout.size());
  for (uint32_t v = 0; v < model.vips.size(); ++v) {
    flags.push_back(static_cast<uint8_t>((snapshot.vip_up[v] ? health::kUsable : 0) |
                                         (snapshot.vip_drained[v] ? 0 : health::kFailOpen)));
  }
  for (uint32_t p = 0; p < model.pools.size(); ++p) {
    const Pool& pool = model.pools[p];
    for (uint32_t b = 0; b < pool.backends.size(); ++b) {
      const BackendStatus& status = snapshot.pools[p].backends[b];
      const bool open = pool.backends[b].weight > 0 && !status.admin && !is_drained(snapshot, pool.backends[b]);
      const bool up =
          open && snapshot.pools[p].up && status.state == BackendState::up && !is_on_standby(snapshot, p, b);
      flags.push_back(static_cast<uint8_t>((up ? health::kUsable : 0) | (open ? health::kFailOpen : 0)));
    }
  }
  flags.resize(layout.size(), health::kUsable | health::kFailOpen);
  apply_target_overrides(snapshot, layout, flags);
  return flags;
}

}  // namespace tidegate::dns
