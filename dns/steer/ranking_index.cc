// SPDX-License-Identifier: Apache-2.0
#include "dns/steer/ranking_index.h"

#include <fmt/format.h>

#include <algorithm>

#include "dns/limits.h"

namespace tidegate::dns {

RankingIndex::RankingIndex(std::vector<uint32_t> all_sites) { of_sites(std::move(all_sites)); }

uint32_t RankingIndex::intern(Question question) {
  const auto [at, added] = by_key_.try_emplace(question.key, static_cast<uint32_t>(questions_.size()));
  if (!added) return at->second;
  if (questions_.size() == kMaxRankings) {
    by_key_.erase(at);
    overflowed_ = overflowed_ || question.is_map;
    return 0;
  }
  questions_.push_back(std::move(question));
  return at->second;
}

uint32_t RankingIndex::of_sites(std::vector<uint32_t> sites) {
  std::sort(sites.begin(), sites.end());
  std::string key = fmt::format("sites {}", fmt::join(sites, " "));
  return intern({std::move(key), std::move(sites), {}, false});
}

uint32_t RankingIndex::of_clients(const std::vector<SteerTarget>& targets) {
  std::string key = "clients";
  for (const SteerTarget& target : targets) {
    const TargetClients& c = target.clients;
    key += fmt::format("\n{};{};{};{}", fmt::join(c.asns, " "), fmt::join(c.regions, " "), fmt::join(c.countries, " "),
                       fmt::join(c.continents, " "));
    for (const Cidr& network : c.networks) key += ";" + network.to_string();
  }
  return intern({std::move(key), {}, targets, true});
}

}  // namespace tidegate::dns
