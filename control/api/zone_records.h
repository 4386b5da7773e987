// SPDX-License-Identifier: Apache-2.0
// Records of zones in the API's JSON form, converted to and from the form of dns/plan/records.h. Pure.
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

// Fills `change` from a body: {"ttl": seconds, "data": ["192.0.2.1", ...]}. Without ttl, or with null, the set keeps
// its TTL. Adds every fault, with its pointer.
void read_record_body(std::string_view body, dns::RecordChange& change, std::vector<Fault>& faults);

}  // namespace tidegate
