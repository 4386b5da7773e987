// SPDX-License-Identifier: Apache-2.0
#include "control/health/site_opinions.h"

namespace tidegate {

std::optional<SiteOpinions::Opinion> SiteOpinions::conclude(const std::string& key, const std::string& node,
                                                            bool patient) const {
  const auto mine = own_.find(key);
  if (mine == own_.end()) return std::nullopt;
  if (mine->second.up) return mine->second;
  bool alone = true;
  for (const auto& [other, opinions] : others_) {
    const auto theirs = opinions.find(key);
    if (other == node || theirs == opinions.end()) continue;
    if (theirs->second.up) return Opinion{true, "node " + other + " reaches it"};
    alone = false;
  }
  return alone && patient ? std::nullopt : std::optional(mine->second);
}

}  // namespace tidegate
