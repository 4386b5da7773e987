// SPDX-License-Identifier: Apache-2.0
// Steers: names whose answers depend on the client, in DNS and HTTPDNS.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "conf/model/common.h"
#include "core/ip.h"

namespace tidegate {

enum class SteerPolicy : uint8_t { nearest, weighted, failover, map, sticky, multivalue, shed };
constexpr bool goes_by_distance(SteerPolicy policy) {
  return policy == SteerPolicy::nearest || policy == SteerPolicy::shed;
}

// The kinds of targets of a steer.
struct TargetVip {
  uint32_t vip = kNone;
  bool operator==(const TargetVip&) const = default;
};
struct TargetPool {
  uint32_t pool = kNone;  // answers with the addresses of its usable backends
  bool operator==(const TargetPool&) const = default;
};
struct TargetSteer {
  uint32_t steer = kNone;  // answers as that steer does
  bool operator==(const TargetSteer&) const = default;
};
struct TargetAlias {
  std::string name;  // a name outside of our zones, lower case, with the final dot; answers with its addresses
  bool operator==(const TargetAlias&) const = default;
};

// The clients that a target of a `map` is for. If all lists are empty, it is for the clients that no other target
// names.
struct TargetClients {
  std::vector<Cidr> networks;
  std::vector<uint32_t> asns;
  std::vector<std::string> regions;    // ISO 3166-2: "US-CA"
  std::vector<std::string> countries;  // ISO 3166-1: "US"
  std::vector<std::string> continents;
  bool empty() const {
    return networks.empty() && asns.empty() && regions.empty() && countries.empty() && continents.empty();
  }
};

struct SteerTarget {
  std::variant<std::monostate, TargetVip, TargetPool, TargetSteer, TargetAlias> what;
  uint32_t weight = 100;
  uint32_t site = kNone;  // of a steer or an alias: where `nearest` assumes it to be
  TargetClients clients;

  // kNone if the target is of another type.
  uint32_t vip() const { return std::holds_alternative<TargetVip>(what) ? std::get<TargetVip>(what).vip : kNone; }
  uint32_t pool() const { return std::holds_alternative<TargetPool>(what) ? std::get<TargetPool>(what).pool : kNone; }
  uint32_t steer() const {
    return std::holds_alternative<TargetSteer>(what) ? std::get<TargetSteer>(what).steer : kNone;
  }
};

struct Steer {
  std::string name;  // owner name in a zone, lower case, with the final dot
  SteerPolicy policy = SteerPolicy::nearest;
  uint64_t ttl_s = 30;
  std::vector<SteerTarget> targets;  // in failover order
  uint32_t max_answers = 4;
  AllDown all_down = AllDown::open;
  bool https_record = false;      // answers HTTPS (RFC 9460) from the listeners that serve the name
  uint8_t client_prefix_v4 = 24;  // of `sticky` and `shed`: clients in the same network get the same target
  uint8_t client_prefix_v6 = 56;
};

struct Model;

// "vip:eu", "pool:app", "steer:www.example.test", "alias:cdn.example.net": the name that identifies the target within
// its steer. Empty if the target is of no type.
std::string target_label(const Model& model, const SteerTarget& target);

}  // namespace tidegate
