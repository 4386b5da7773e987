// SPDX-License-Identifier: Apache-2.0
// choose(): which addresses of a steer a client gets. It decides by the client's place, by health and by the draw of
// draw.h. Pure: no clock, no socket, no allocation.
//
// A steer's classes are tried in the order of its policy. The first class with a usable candidate gives the answer,
// which is drawn by share without replacement. A candidate that is a steer is decided in the same way, for the same
// client.
//
// The scope of the answer is the scope of the narrowest decision on which it depends, in this steer or in an inner
// steer that a draw may reach. Everywhere within the scope, the candidates of the draw are the same.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "conf/model/common.h"
#include "dns/steer/alias_book.h"
#include "dns/steer/draw.h"
#include "dns/steer/ranking_map.h"
#include "dns/steer/shares.h"
#include "dns/steer/steer.h"

namespace tidegate::dns {

// Borrowed for the call.
struct SteerContext {
  std::span<const CompiledSteer> steers;
  const Rankings& rankings;
  const Health& health;
  std::span<const AliasAddresses> aliases;  // parallel to alias_names()
  std::span<const SiteShare> shares;        // parallel to Model::sites; empty: no site sheds anything
};

// A step of choose(), for explain. Each step belongs to the last step before it that is one level higher.
struct ChoiceStep {
  enum class Kind : uint8_t {
    steer,    // a steer is decided
    shed,     // `site` sends this client to another site
    nothing,  // a target was drawn, but had no address
    target,   // a target was drawn, and gave addresses
  };
  Kind kind = Kind::steer;
  uint8_t level = 0;
  uint32_t steer = kNone;   // of `steer` and `shed`: index into Model::steers
  uint32_t target = kNone;  // target of the steer to which the step belongs
  uint32_t site = kNone;
  bool anyway = false;  // in the second attempt, because nothing was usable
};

struct Choice {
  std::array<const uint8_t*, kMaxAnswers> picks;  // `count` addresses of the family; they borrow the context
  uint32_t count = 0;
  uint32_t ttl_s = 0;        // the smallest TTL of the steers and aliases through which the picks came
  uint8_t scope = 0;         // prefix length, in the family of the client's address
  bool failed_open = false;  // nothing was usable and all_down is open
  bool refused = false;      // nothing may be answered, although there are addresses
  bool placed = true;        // false: `nearest` has no information about the client's network
  bool named = true;         // false: a `map` has no target for the client
  bool shed = false;         // a site was skipped because it is loaded
};

// If there are no picks and it is not refused, the steer has no address of that family for this client. `client` is the
// address by which the client is located.
Choice choose(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
              const IpAddress& client, const DrawKey& key);

// Like choose(), and also returns the steps in their order. Not for queries.
Choice choose_told(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
                   const IpAddress& client, const DrawKey& key, std::vector<ChoiceStep>& steps);

}  // namespace tidegate::dns
