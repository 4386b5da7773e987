// SPDX-License-Identifier: Apache-2.0
#include "control/api/problem.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "conf/state_store.h"
#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/host_state.h"

namespace tidegate {

namespace {

HttpResponse as_problem(int status, const nlohmann::json& body) {
  HttpResponse response = HttpResponse::text(status, dump(body, 2) + "\n", "application/problem+json");
  if (status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer realm=\"tidegate\"");
  return response;
}

}  // namespace

HttpResponse problem(int status, std::string_view code, std::string_view detail) {
  return as_problem(status, {{"type", "about:blank"},
                             {"title", http1::reason_phrase(status)},
                             {"status", status},
                             {"code", code},
                             {"detail", detail}});
}

HttpResponse store_failure(const Error& error) {
  const bool not_known = error.message.starts_with(kNotKnown);
  if (not_known || error.message.starts_with(kNotDecided)) {
    HttpResponse answer = problem(503, not_known ? "outcome_unknown" : "not_decided", error.message);
    answer.headers.emplace_back("Retry-After", "1");
    return answer;
  }
  return is_disk_full(error) ? problem(507, "disk_full", error.message) : problem(500, "store_failed", error.message);
}

HttpResponse bad_parameter(const QueryFault& fault) {
  return as_problem(400, {{"type", "about:blank"},
                          {"title", http1::reason_phrase(400)},
                          {"status", 400},
                          {"code", fault.code},
                          {"detail", fault.detail},
                          {"parameter", fault.parameter},
                          {"given", fault.given},
                          {"expected", fault.expected}});
}

HttpResponse refused_by_planes(std::string_view code, uint64_t candidate, const std::vector<std::string>& reasons,
                               const nlohmann::json& votes) {
  return as_problem(409, {{"type", "about:blank"},
                          {"title", "Not every plane can serve the configuration"},
                          {"status", 409},
                          {"code", code},
                          {"detail", fmt::format("nothing was changed: {}", fmt::join(reasons, "; "))},
                          {"candidate", candidate},
                          {"reasons", reasons},
                          {"votes", votes}});
}

HttpResponse invalid_configuration(const std::vector<Fault>& faults) {
  return as_problem(
      422, {{"type", "about:blank"},
            {"title", "The configuration is not valid"},
            {"status", 422},
            {"code", "invalid_configuration"},
            {"detail", fmt::format("{} fault{}; nothing was changed", faults.size(), faults.size() == 1 ? "" : "s")},
            {"faults", to_json(faults)}});
}

}  // namespace tidegate
