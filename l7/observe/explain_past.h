// SPDX-License-Identifier: Apache-2.0
// Explain of a past request: what the records say about it. Names and numbers are those in use when the request ended,
// even if the configuration has changed since.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "core/http_server.h"
#include "core/result.h"
#include "l7/name_ids.h"
#include "l7/observe/request_records.h"

namespace tidegate::l7 {

// GET /explain?request=ID. {"plane","request","found","records":[...],"complete_since_s","forgotten"}, the newest
// record first. `records` null: this proxy remembers no requests. If nothing is found, "forgotten" says what may have
// been forgotten. Returns an Error if the id is malformed, or if other parameters are given too.
Result<nlohmann::json> explain_past(const RequestRecords* records, const NameIds& names, const HttpRequest& request,
                                    uint64_t now_ns);

}  // namespace tidegate::l7
