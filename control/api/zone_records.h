// SPDX-License-Identifier: Apache-2.0
// Records of zones as the API speaks of them: JSON, to and from what dns/plan/records.h works on. Pure.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "core/result.h"
#include "dns/plan/records.h"

namespace tidegate {

// {"name","type","ttl","data":[...],"file","line"}
nlohmann::json to_json(const dns::RecordSet& set);

// Adds to `change` what a body asks for: {"ttl": seconds, "data": ["192.0.2.1", ...]}, with ttl left out or null for
// that of the set. Adds every fault, with its pointer.
void read_record_body(std::string_view body, dns::RecordChange& change, std::vector<Fault>& faults);

}  // namespace tidegate
