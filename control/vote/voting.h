// SPDX-License-Identifier: Apache-2.0
// Voting: how the vote on a candidate went, for answers and records.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tidegate {

struct Voting {
  uint64_t id = 0;  // of the candidate; 0: nobody voted
  bool accepted = false;
  bool needs_only_restart = false;                 // refused for keys that need a restart, and nothing else
  std::vector<std::string> reasons;                // of a refusal, one line for each voter
  nlohmann::json votes = nlohmann::json::array();  // BallotRun::votes()
};

}  // namespace tidegate
