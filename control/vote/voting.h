// SPDX-License-Identifier: Apache-2.0
// Voting: the result of the vote on a candidate, for answers and records.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace tidegate {

struct Voting {
  uint64_t id = 0;  // id of the candidate; 0: there was no vote
  bool accepted = false;
  bool needs_only_restart = false;                 // refused only because of keys that need a restart
  std::vector<std::string> reasons;                // reasons of a refusal, one line for each voter
  nlohmann::json votes = nlohmann::json::array();  // BallotRun::votes()
};

}  // namespace tidegate
