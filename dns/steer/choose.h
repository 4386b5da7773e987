// SPDX-License-Identifier: Apache-2.0
// choose(): which addresses a client gets of a steer. Decided from the client's place, from health and from the draw of
// draw.h. Pure: no clock, no socket, no allocation.
//
// A steer's classes are tried in the order of its policy. The first class that has something usable gives the answer,
// drawn by share without replacement. A candidate that is a steer is decided in the same way, for the same client.
//
// The scope of the answer is that of the narrowest decision on which it depends, of this steer and of those within it
// that a draw may lead to: everywhere within the scope, the same candidates are drawn from.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

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

// What choose() looked at, for explain: each step within the one before it that is a level less deep.
struct ChoiceStep {
  enum class Kind : uint8_t {
    steer,    // a steer is decided
    shed,     // `site` sends this client on
    nothing,  // a target was drawn that had nothing
    target,   // a target was drawn, and gave addresses
  };
  Kind kind = Kind::steer;
  uint8_t level = 0;
  uint32_t steer = kNone;   // of `steer` and `shed`: index into Model::steers
  uint32_t target = kNone;  // of the steer that the step is within
  uint32_t site = kNone;
  bool anyway = false;  // in the second attempt, because nothing was usable
};

struct Choice {
  std::array<const uint8_t*, kMaxAnswers> picks;  // `count` addresses of the family; they borrow the context
  uint32_t count = 0;
  uint32_t ttl_s = 0;        // the smallest of those steers and aliases that the picks came by
  uint8_t scope = 0;         // prefix length, in the family of the client's address
  bool failed_open = false;  // nothing was usable and all_down is open
  bool refused = false;      // nothing may be answered although there are addresses
  bool placed = true;        // false: `nearest` knew nothing of the client's network
  bool named = true;         // false: a `map` has no target for the client
  bool shed = false;         // a site was passed over because it is loaded
};

// No picks and not refused: the steer has no address of that family for this client. `client` is the address by which
// the client is located.
Choice choose(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
              const IpAddress& client, const DrawKey& key);

// The same, and the steps to it in their order. Not for queries.
Choice choose_told(const SteerContext& context, const CompiledSteer& steer, IpAddress::Family family,
                   const IpAddress& client, const DrawKey& key, std::vector<ChoiceStep>& steps);

}  // namespace tidegate::dns
