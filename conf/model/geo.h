// SPDX-License-Identifier: Apache-2.0
// The places of clients: databases and networks.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "conf/model/common.h"
#include "conf/model/site.h"
#include "core/ip.h"

namespace tidegate {

// Where the clients of a network are: a site, or a location from which the nearest site is computed.
struct GeoNetwork {
  Cidr network;
  uint32_t site = kNone;
  std::optional<Location> location;
};

struct Geo {
  // Path on the host of a City-like database. It is not an object of the version, because licences forbid copying it.
  std::string mmdb;
  std::vector<std::string> other_mmdbs;  // used for facts that earlier ones do not have
  std::vector<GeoNetwork> networks;      // the longest prefix wins, and has precedence over the mmdb
  uint32_t default_site = kNone;
};

}  // namespace tidegate
