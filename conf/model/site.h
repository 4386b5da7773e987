// SPDX-License-Identifier: Apache-2.0
// Sites of the edge, and the virtual addresses that they have.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

struct Location {
  double latitude = 0, longitude = 0;  // degrees
};

struct Site {
  std::string name;
  Location location;
  double bias = 0;  // in per cent: for `nearest`, distances to it count less (positive) or more (negative)
  // in per cent of load: above it, steers of the policy `shed` send some of its clients to other sites
  uint32_t shed_above = 80;
};

struct Vip {
  std::string name;
  uint32_t site = kNone;
  std::vector<IpAddress> addresses;
};

}  // namespace tidegate
