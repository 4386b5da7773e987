// SPDX-License-Identifier: Apache-2.0
// The keys of concurrency: how many requests may be under way at one time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/policy/limit.h"
#include "conf/policy_model.h"

namespace tidegate {

struct AdaptiveConcurrency {
  bool enabled = false;
  uint64_t least = 4;
  uint64_t most = 1'000;
  uint64_t initial = 20;
  double tolerance = 1.3;  // how many times the unloaded answer time is still no sign of a queue
};

// The places of one tenant, or of several together.
struct ConcurrencyLane {
  std::string name;                 // in metrics
  std::vector<std::string> values;  // of what `tenant` names; empty: its own name
  uint64_t requests = 0;            // 0: not written; then `share` is
  double share = 0;                 // of the adaptive limit
};

// In metrics: the requests that no lane is for.
constexpr const char* kConcurrencyOtherLane = "other";

struct ConcurrencyPolicy final : PolicyPart {
  uint64_t requests = 0;        // 0: not written; then `adaptive` or `connections` is
  uint64_t connections = 0;     // of clients, that have requests under way; 0: any number
  std::vector<std::string> by;  // what they are counted by, together; empty: all that the policy holds for
  uint8_t prefix_v4 = 32;       // of the client's address
  uint8_t prefix_v6 = 64;
  uint64_t keys = 65'536;
  uint64_t retry_after_s = 1;
  uint64_t wait_ms = 0;    // how long a request waits for a place; 0: it is refused at once
  uint64_t queue = 1'024;  // how many may wait
  std::vector<Cidr> exempt;
  std::vector<std::string> low_priority;  // names of routes
  double low_share = 0.5;                 // of the places, for their requests
  AdaptiveConcurrency adaptive;
  std::string tenant;  // whose value names the lane, as a word of `by`; empty: there are no lanes
  std::vector<ConcurrencyLane> lanes;
};

}  // namespace tidegate
