// SPDX-License-Identifier: Apache-2.0
// Shapes: records of the state store as JSON, and back. The API, the watch stream and the replicas share one form.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "conf/live_state.h"
#include "conf/state_store.h"
#include "core/result.h"

namespace tidegate {

nlohmann::json to_json(const StateHead& head);
nlohmann::json to_json(const Manifest& manifest, bool with_entries);
nlohmann::json to_json(const Override& record);
nlohmann::json to_json(const HealthVerdict& record);
nlohmann::json to_json(const SiteLoad& record);
nlohmann::json to_json(const FoundName& record);
nlohmann::json to_json(const LiveState& live_state);
nlohmann::json to_json(const Purge& purge);
nlohmann::json to_json(const AuditRecord& record);
nlohmann::json to_json(const Fault& fault);
nlohmann::json to_json(const std::vector<Fault>& faults);

// From another control. If a member is missing or has a wrong type, returns an Error that names it.
Result<StateHead> head_from_json(const nlohmann::json& json);
Result<Manifest> manifest_from_json(const nlohmann::json& json);
Result<LiveState> live_state_from_json(const nlohmann::json& json);
Result<Purge> purge_from_json(const nlohmann::json& json);
// From the API, for the command line.
std::vector<Fault> faults_from_json(const nlohmann::json& json);

const char* name(OverrideState state);
std::optional<OverrideState> parse_override_state(std::string_view text);
const char* name(PurgeKind kind);

}  // namespace tidegate
