// SPDX-License-Identifier: Apache-2.0
// The keys of concurrency: how many requests may be under way at one time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/policy.h"
#include "conf/policy/limit.h"

namespace tidegate {

struct AdaptiveConcurrency {
  bool enabled = false;
  uint64_t least = 4;
  uint64_t most = 1'000;
  uint64_t initial = 20;
  double tolerance = 1.3;  // an answer time below this multiple of the unloaded one is no sign of a queue
};

// The places that one tenant has, or several tenants together.
struct ConcurrencyLane {
  std::string name;                 // its name in metrics
  std::vector<std::string> values;  // values of what `tenant` names; empty: the lane's own name
  uint64_t requests = 0;            // 0: not written; then `share` is set
  double share = 0;                 // share of the adaptive limit
};

// The name in metrics for requests without a lane.
constexpr const char* kConcurrencyOtherLane = "other";

struct ConcurrencyPolicy final : PolicyPart {
  uint64_t requests = 0;     // 0: not written; then `adaptive` or `connections` is set
  uint64_t connections = 0;  // connections of clients that may have requests in progress; 0: no limit
  // what identifies the client whose requests are counted; empty: all requests of the policy together
  std::vector<std::string> by;
  uint8_t prefix_v4 = 32;  // of the client's address
  uint8_t prefix_v6 = 64;
  uint64_t keys = 65'536;
  uint64_t retry_after_s = 1;
  uint64_t wait_ms = 0;    // how long a request waits for a place; 0: it is refused at once
  uint64_t queue = 1'024;  // how many may wait
  std::vector<Cidr> exempt;
  std::vector<std::string> low_priority;  // names of routes
  // share of the places that their requests may have
  double low_share = 0.5;
  AdaptiveConcurrency adaptive;
  std::string tenant;  // names the lane of a request by its value, as a word of `by`; empty: there are no lanes
  std::vector<ConcurrencyLane> lanes;
};

}  // namespace tidegate
