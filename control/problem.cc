#include "control/problem.h"

#include <fmt/format.h>

#include "control/json_bounds.h"
#include "control/shapes.h"

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
