// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/shares.h"

#include <algorithm>

#include "conf/model.h"
#include "conf/model/site.h"
#include "dns/steer/steer.h"

namespace tidegate::dns {
namespace {

// An upper bound: a site from which all clients are sent on could never show that it is free again.
constexpr uint32_t kMostShed = 950;

}  // namespace

std::vector<SiteShare> compile_shares(const Snapshot& snapshot) {
  std::vector<SiteShare> shares;
  const bool any = std::any_of(snapshot.loads.begin(), snapshot.loads.end(),
                               [](const SiteLoad& load) { return load.shed_permille != 0; });
  if (!any) return shares;
  for (size_t s = 0; s < snapshot.loads.size(); ++s) {
    const uint32_t shed = std::min(snapshot.loads[s].shed_permille, kMostShed);
    shares.push_back({UINT64_MAX / 1'000 * shed, hash_of_text(snapshot.model->sites[s].name), 1'000 - shed});
  }
  return shares;
}

}  // namespace tidegate::dns
