// SPDX-License-Identifier: Apache-2.0
// Explain: why a client's query is answered in this way. It uses the same functions and tables as the answer.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "core/ip.h"
#include "dns/query/query.h"

namespace tidegate::dns {

// `type` is "A", "AAAA", or any other type's name. {"plane":"dns","zone","name","type","steer","policy","geo":{...},
// "candidates":[...],"answers":[...],"ttl_s","rcode","reason"}, or {"plane":"dns","error":...}.
nlohmann::json explain(const IpAddress& client, std::string_view name, std::string_view type, const Tables& tables,
                       Worker& worker);

}  // namespace tidegate::dns
