// SPDX-License-Identifier: Apache-2.0
#include "control/cli/wait.h"

#include <fmt/format.h>

#include <cstdio>

#include "control/api/json_bounds.h"
#include "control/cli/output.h"

namespace tidegate::cli {

void print_applied(Cli& cli, const nlohmann::json& outcome) {
  const bool converged = bool_member(outcome, "converged");
  if (!converged) cli.exit_status = kRefused;
  if (cli.json()) return;
  for (const nlohmann::json& missing : outcome.value("missing", nlohmann::json::array())) {
    fmt::print(stderr, "not applied  {}\n", missing.get<std::string>());
  }
  for (const nlohmann::json& unreachable : outcome.value("unreachable", nlohmann::json::array())) {
    fmt::print(stderr, "unreachable  {}\n", unreachable.get<std::string>());
  }
  if (converged) {
    fmt::print("{}\n", paint(fmt::format("applied on every plane that can be reached, after {} ms",
                                         number_member(outcome, "waited_ms")),
                             Tone::good));
  }
}

void wait_until_applied(Cli& cli, uint64_t version, uint64_t words) {
  ApiRequest request;
  request.method = "POST";
  request.target = fmt::format("/v1/status/wait?version={}&words={}", version, words);
  if (const std::optional<nlohmann::json> outcome = call(cli, std::move(request))) print_applied(cli, *outcome);
}

}  // namespace tidegate::cli
