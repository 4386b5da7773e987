// Problems: refusals of the API as problem+json (RFC 9457), each with a stable `code` for programs and a sentence for
// people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "conf/fault.h"
#include "core/http_server.h"

namespace tidegate {

HttpResponse problem(int status, std::string_view code, std::string_view detail);
// 422 with every fault of the document: pointer, file, line, column, code, detail, expected, hint.
HttpResponse invalid_configuration(const std::vector<Fault>& faults);

}  // namespace tidegate
