// SPDX-License-Identifier: Apache-2.0
#include "l4/top_sources.h"

#include <map>
#include <tuple>

namespace tidegate::l4 {

std::vector<TopSource> merge(const std::vector<std::unique_ptr<TopSources>>& workers) {
  std::map<std::tuple<uint8_t, uint64_t, uint64_t>, TopSource> by_network;
  for (const auto& worker : workers) {
    for (const TopSource& each : worker->places()) {
      if (each.family == 0) continue;
      TopSource& sum = by_network[{each.family, each.network.a, each.network.b}];
      sum.network = each.network;
      sum.family = each.family;
      sum.packets += each.packets;
      sum.bytes += each.bytes;
      sum.error += each.error;
    }
  }
  std::vector<TopSource> sources;
  for (const auto& entry : by_network) sources.push_back(entry.second);
  std::stable_sort(sources.begin(), sources.end(),
                   [](const TopSource& a, const TopSource& b) { return a.packets > b.packets; });
  return sources;
}

}  // namespace tidegate::l4
