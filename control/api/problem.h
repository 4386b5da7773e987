// SPDX-License-Identifier: Apache-2.0
// Problems: refusals of the API as problem+json (RFC 9457). Each has a stable `code` for programs and a sentence for
// people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "conf/query.h"
#include "core/http_server.h"
#include "core/result.h"

namespace tidegate {

HttpResponse problem(int status, std::string_view code, std::string_view detail);
// The answer after a failed write or read of the state: 507 if there is no room, else 500.
HttpResponse store_failure(const Error& error);
// A 400 that also has "parameter", "given" and "expected".
HttpResponse bad_parameter(const QueryFault& fault);
// A 409: planes cannot serve a candidate. It has "candidate", "reasons" and "votes".
HttpResponse refused_by_planes(std::string_view code, uint64_t candidate, const std::vector<std::string>& reasons,
                               const nlohmann::json& votes);
// A 422 with every fault of the document: pointer, file, line, column, code, detail, expected, hint.
HttpResponse invalid_configuration(const std::vector<Fault>& faults);

}  // namespace tidegate
