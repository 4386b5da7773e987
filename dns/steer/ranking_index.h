// SPDX-License-Identifier: Apache-2.0
// RankingIndex: the rankings that an edge's steers need from the geography. It depends only on the Model. RankingMap
// (ranking_map.h) computes them on each host.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "conf/model/steer.h"

namespace tidegate::dns {

// The rankings that an edge's steers need, each once, with its own index.
class RankingIndex {
 public:
  RankingIndex() = default;
  // 0 is the order of all steered sites.
  explicit RankingIndex(std::vector<uint32_t> all_sites);
  // If there are more than kMaxRankings different sets of sites, it is 0. Its scopes may be narrower than necessary.
  uint32_t of_sites(std::vector<uint32_t> sites);
  uint32_t of_clients(const std::vector<SteerTarget>& targets);

  struct Question {
    std::string key;  // equal questions have equal keys
    std::vector<uint32_t> sites;
    std::vector<SteerTarget> targets;  // for a map; only their clients are used
    bool is_map = false;
  };
  const std::vector<Question>& questions() const { return questions_; }
  // True if there are more different maps than kMaxRankings.
  bool overflowed() const { return overflowed_; }

 private:
  uint32_t intern(Question question);
  std::vector<Question> questions_;
  std::unordered_map<std::string, uint32_t> by_key_;
  bool overflowed_ = false;
};

}  // namespace tidegate::dns
