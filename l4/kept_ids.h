// SPDX-License-Identifier: Apache-2.0
// KeptIds: the meaning of the entries of a kept flow table: which backend has each id, and how the packets of each pool
// were sent. A successor restores KeptIds before its first tables. So the same backends get the same ids.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "l4/action.h"
#include "l4/ids.h"

namespace tidegate::l4 {

struct KeptIds {
  std::vector<std::pair<BackendKey, BackendId>> backends;
  std::map<std::string, TunnelConfig> pools;  // every pool that has flows, also pools that no service uses any more
  uint64_t longest_timeout_ms = 0;            // how long a flow may hold an id
  bool operator==(const KeptIds&) const = default;
};

}  // namespace tidegate::l4
