// SPDX-License-Identifier: Apache-2.0
// SharedBounds: the token buckets of the services, shared by all workers. ServiceShare: the tokens that one worker has
// taken and not used yet. Both are indexed by ServiceId.
#pragma once

#include <vector>

#include "l4/limits.h"
#include "l4/tokens.h"

namespace tidegate::l4 {

struct ServiceTokens {
  SharedTokens packets, flows;
};

struct ServiceShare {
  TokenShare packets, flows;
};

struct SharedBounds {
  std::vector<ServiceTokens> services = std::vector<ServiceTokens>(kMaxServices);
};

}  // namespace tidegate::l4
