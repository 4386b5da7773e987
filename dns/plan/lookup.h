// SPDX-License-Identifier: Apache-2.0
// Lookup: finds a name in a zone and its steers (RFC 1034 §4.3.2, RFC 4592, RFC 6672). Pure.
#pragma once

#include <cstdint>

#include "conf/model/common.h"
#include "dns/plan/authority.h"

namespace tidegate::dns {

struct Found {
  enum class Kind : uint8_t {
    exact,     // the name exists: as a node of the zone, as a steer, or as both
    wildcard,  // it does not exist, but a "*" stands for it
    referral,  // `node` delegates it away
    dname,     // `node` redirects everything below it
    nothing,   // NXDOMAIN
  } kind = Kind::nothing;
  NodeView node;           // node of the zone; null if the name exists only because of a steer
  uint32_t steer = kNone;  // index into Authority::steers
};

// `name` must end in the zone's apex.
Found find_name(const ServedZone& served, const Name& name, uint16_t type);

}  // namespace tidegate::dns
