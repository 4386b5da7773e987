// SPDX-License-Identifier: Apache-2.0
// The shares of clients that sites send to other sites, for the policy `shed`. It is made again at each change of live
// state.
#pragma once

#include <cstdint>
#include <vector>

#include "conf/snapshot.h"

namespace tidegate::dns {

struct SiteShare {
  uint64_t below = 0;              // a client whose hash is below this is sent on; 0: none is
  uint64_t identity = 0;           // hash of the site's name: the same in every version
  uint32_t kept_permille = 1'000;  // the share that stays; greater than 0
};

// Parallel to Model::sites. Empty while no site sheds anything, so nothing needs to be checked then.
std::vector<SiteShare> compile_shares(const Snapshot& snapshot);

}  // namespace tidegate::dns
