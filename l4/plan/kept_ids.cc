// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

void ForwardingBuilder::restore(const KeptIds& ids, uint64_t now_ns) {
  backend_ids_.restore(ids.backends, now_ns);
  served_pools_ = ids.pools;
  longest_timeout_ms_ = ids.longest_timeout_ms;
}

KeptIds ForwardingBuilder::kept_ids() const {
  KeptIds ids;
  backend_ids_.for_each([&](const BackendKey& key, BackendId id) { ids.backends.emplace_back(key, id); });
  ids.pools = served_pools_;
  for (const auto& [pool, tunnel] : staged_.served_pools) ids.pools.insert_or_assign(pool, tunnel);
  ids.longest_timeout_ms = std::max(longest_timeout_ms_, staged_.longest_timeout_ms);
  return ids;
}

bool ForwardingBuilder::ids_changed() const {
  return backend_ids_.has_fresh() || !staged_.served_pools.empty() || staged_.longest_timeout_ms > longest_timeout_ms_;
}

}  // namespace tidegate::l4
