// SPDX-License-Identifier: Apache-2.0
// What share of their clients sites send on, for the policy `shed`: made anew at each change of live state.
#pragma once

#include <cstdint>
#include <vector>

#include "conf/snapshot.h"

namespace tidegate::dns {

struct SiteShare {
  uint64_t below = 0;              // a client whose hash is below it is sent on; 0: none is
  uint64_t identity = 0;           // hash of the site's name: the same in every version
  uint32_t kept_permille = 1'000;  // the share that stays, above 0
};

// Parallel to Model::sites. Empty while no site sheds anything, so that nothing is looked at then.
std::vector<SiteShare> compile_shares(const Snapshot& snapshot);

}  // namespace tidegate::dns
