// SPDX-License-Identifier: Apache-2.0
// LiveState: what operators and probes say about the edge. It is separate from the configuration and survives its
// changes. An override comes from an operator ("drain this"). A health verdict comes from a probe. Both are kept in the
// state store.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace tidegate {

enum class OverrideState : uint8_t {
  drained,
  down,
  up,  // of a plane only: it is in service whatever control finds
};     // no record: control decides

struct Override {
  OverrideState state = OverrideState::drained;
  std::string by;  // who set it
  std::string note;
  uint64_t since_ns = 0;  // realtime
};

struct HealthVerdict {
  bool up = false;
  std::string reason;     // "connect: refused", "status 503, expected 200"
  uint64_t since_ns = 0;  // realtime of the change
  bool drains = false;    // of a plane that is not up: it takes no new work, and what runs there can go on
  bool operator==(const HealthVerdict&) const = default;
};

// What steers of the policy `shed` do about the load of a site. Control decides it from what the site's proxies report
// (control/health/shed_controller.h), so that every name server does the same.
struct SiteLoad {
  uint32_t load_percent = 0;   // when the share was decided
  uint32_t shed_permille = 0;  // share of the site's clients that are sent on
  uint64_t since_ns = 0;       // realtime of the decision
};

// Keys of overrides: "backend/<pool>/<backend>", "pool/<pool>", "site/<site>", "vip/<vip>" and
// "target/<steer>/<target>", where the target's name is its target_label() (conf/model.h) and the steer's has no final
// dot, and "plane/<node>/<plane>". Keys of health: "backend/<pool>/<backend>" and "plane/<node>/<plane>"; a plane
// without a record is up. Keys of loads: "site/<site>"; a site that sheds nothing has none.
struct LiveState {
  uint64_t sequence = 0;  // increases by one with every change of any record
  std::map<std::string, Override> overrides;
  std::map<std::string, HealthVerdict> health;
  std::map<std::string, SiteLoad> loads;
};

std::string backend_key(std::string_view pool, std::string_view backend);
std::string pool_key(std::string_view pool);
std::string site_key(std::string_view site);
std::string vip_key(std::string_view vip);
std::string target_key(std::string_view steer, std::string_view label);
std::string plane_key(std::string_view node, std::string_view plane);

}  // namespace tidegate
