// SPDX-License-Identifier: Apache-2.0
#include "control/observe/convergence.h"

#include <fmt/format.h>

#include "control/api/json_bounds.h"

namespace tidegate {

namespace {

// Returns what the plane has not applied, or an empty text.
std::string what_is_missing(const nlohmann::json& plane, const StateHead& wanted, bool& refused) {
  const uint64_t version = number_member(plane, "version");
  if (version < wanted.version) {
    const std::string why = string_member(plane, "refused");
    refused = !why.empty();
    return refused ? fmt::format("refused version {}: {}", wanted.version, why) : fmt::format("at version {}", version);
  }
  const uint64_t live_state = number_member(plane, "words");
  if (live_state < wanted.live_state) return fmt::format("at words {}", live_state);
  const uint64_t purge = number_member(plane, "purge");
  if (string_member(plane, "plane") == "l7" && purge < wanted.purge) return fmt::format("at purge {}", purge);
  return {};
}

}  // namespace

Convergence check_convergence(const nlohmann::json& status, const StateHead& wanted) {
  Convergence result;
  bool any_late = false;
  for (const nlohmann::json& node : status.at("nodes")) {
    const std::string node_name = string_member(node, "name");
    if (!bool_member(node, "reachable")) {
      result.unreachable.push_back(fmt::format("{}: {}", node_name, string_member(node, "why")));
      continue;
    }
    for (const nlohmann::json& plane : node.at("unreachable")) {
      result.unreachable.push_back(
          fmt::format("{}/{}: {}", node_name, string_member(plane, "plane"), string_member(plane, "why")));
    }
    for (const nlohmann::json& plane : node.at("planes")) {
      const std::string plane_name = fmt::format("{}/{}", node_name, string_member(plane, "plane"));
      bool refused = false;
      const std::string missing = what_is_missing(plane, wanted, refused);
      if (missing.empty()) continue;
      any_late = any_late || !refused;
      result.missing.push_back(fmt::format("{}: {}", plane_name, missing));
    }
  }
  result.reached = result.missing.empty();
  result.hopeless = !result.reached && !any_late;
  return result;
}

}  // namespace tidegate
