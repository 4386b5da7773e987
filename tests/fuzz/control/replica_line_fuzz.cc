// SPDX-License-Identifier: Apache-2.0
// What another control sends: manifests, live state and purges as JSON. Accepted values must come out the same.

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/api/watch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tidegate;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)parse_event_id(text);
  const Result<nlohmann::json> line = parse_json(text);
  if (!line || !line->is_object()) return 0;
  if (const Result<LiveState> live_state = live_state_from_json(line->value("words", nlohmann::json()))) {
    const Result<LiveState> again = live_state_from_json(to_json(*live_state));
    if (!again || again->health.size() != live_state->health.size()) std::abort();
  }
  if (const Result<Manifest> manifest = manifest_from_json(line->value("manifest", nlohmann::json()))) {
    const Result<Manifest> again = manifest_from_json(to_json(*manifest, true));
    if (!again || again->entries != manifest->entries) std::abort();
  }
  if (const Result<Purge> purge = purge_from_json(line->value("purge", nlohmann::json()))) {
    if (to_json(*purge) != line->value("purge", nlohmann::json()) && !purge_from_json(to_json(*purge))) std::abort();
  }
  return 0;
}
