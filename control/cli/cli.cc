// SPDX-License-Identifier: Apache-2.0
#include "control/cli/cli.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "control/api/json_bounds.h"
#include "control/api/shapes.h"
#include "control/cli/output.h"
#include "core/percent.h"

namespace tidegate::cli {

std::optional<HttpTarget> api_target(Cli& cli, std::vector<std::pair<std::string, std::string>>& headers) {
  HttpTarget target;
  constexpr std::string_view kHttp = "http://", kHttps = "https://";
  target.tls = cli.api.starts_with(kHttps);
  if (target.tls || cli.api.starts_with(kHttp)) {
    std::string authority = cli.api.substr(target.tls ? kHttps.size() : kHttp.size());
    while (!authority.empty() && authority.back() == '/') authority.pop_back();
    const std::optional<Endpoint> endpoint = Endpoint::parse(authority);
    if (!endpoint) {
      fmt::print(stderr, "tidegate: --api {} is not http(s)://ADDRESS:PORT\n", cli.api);
      cli.exit_status = kMisuse;
      return std::nullopt;
    }
    target.endpoint = *endpoint;
    target.tls_verify = target.tls;
    target.tls_server_name = endpoint->address.to_string();
    if (!cli.ca_file.empty()) {
      std::ifstream file(cli.ca_file, std::ios::binary);
      target.tls_ca_pem.assign(std::istreambuf_iterator<char>(file), {});
      if (target.tls_ca_pem.empty()) {
        fmt::print(stderr, "tidegate: no certificate in {}\n", cli.ca_file);
        cli.exit_status = kMisuse;
        return std::nullopt;
      }
    }
  } else {
    target.unix_path = cli.api;
  }
  if (!cli.token_file.empty()) {
    std::ifstream file(cli.token_file);
    std::string token;
    if (!(file >> token)) {
      fmt::print(stderr, "tidegate: no token in {}\n", cli.token_file);
      cli.exit_status = kMisuse;
      return std::nullopt;
    }
    headers.emplace_back("Authorization", "Bearer " + token);
  }
  return target;
}

std::optional<HttpResponse> call_raw(Cli& cli, ApiRequest request) {
  HttpClientRequest http;
  http.method = std::move(request.method);
  http.target = std::move(request.target);
  http.host = "tidegate";
  http.headers = std::move(request.headers);
  http.body = std::move(request.body);
  http.timeout_ms = request.timeout_ms;
  if (!request.content_type.empty()) http.headers.emplace_back("Content-Type", request.content_type);
  const std::optional<HttpTarget> target = api_target(cli, http.headers);
  if (!target) return std::nullopt;
  Result<HttpResponse> response = http_fetch(*target, std::move(http));
  if (response) return std::move(*response);
  fmt::print(stderr, "tidegate: cannot reach the control plane: {}\n", response.error().message);
  cli.exit_status = kUnreachable;
  return std::nullopt;
}

void print_refusal(Cli& cli, const HttpResponse& response, const std::string& document) {
  cli.exit_status = kRefused;
  if (cli.json()) {
    fmt::print("{}", response.body);
    return;
  }
  const Result<nlohmann::json> problem = parse_json(response.body);
  std::vector<Fault> faults;
  if (problem && problem->is_object()) faults = faults_from_json(problem->value("faults", nlohmann::json()));
  if (!faults.empty()) {
    fmt::print(stderr, "{}", render_faults(faults, document, stderr_is_terminal()));
    fmt::print(stderr, "refused: {}\n", string_member(*problem, "detail"));
  } else if (problem && problem->is_object() && problem->contains("reasons")) {
    for (const nlohmann::json& reason : problem->value("reasons", nlohmann::json::array())) {
      fmt::print(stderr, "{}\n", reason.is_string() ? reason.get<std::string>() : dump(reason));
    }
    const bool restart = string_member(*problem, "code") == "needs_restart";
    fmt::print(stderr, "refused ({}): nothing was changed{}\n", response.status,
               restart ? "; --allow-restart commits it, and the planes take it up when they start again" : "");
  } else {
    fmt::print(stderr, "refused ({}): {}\n", response.status,
               problem ? string_member(*problem, "detail", response.body) : response.body);
  }
}

std::optional<nlohmann::json> call(Cli& cli, ApiRequest request, const std::string& document) {
  const std::optional<HttpResponse> response = call_raw(cli, std::move(request));
  if (!response) return std::nullopt;
  if (response->status / 100 != 2) {
    print_refusal(cli, *response, document);
    return std::nullopt;
  }
  Result<nlohmann::json> body = parse_json(response->body);
  if (body) return std::move(*body);
  fmt::print(stderr, "tidegate: the answer is not JSON: {}\n", body.error().message);
  cli.exit_status = kUnreachable;
  return std::nullopt;
}

std::string query(const std::vector<std::pair<std::string, std::string>>& parameters) {
  std::string out;
  for (const auto& [name, value] : parameters) {
    if (!value.empty()) out += fmt::format("{}{}={}", out.empty() ? '?' : '&', name, percent_encode(value));
  }
  return out;
}

nlohmann::json changes_for_people(const nlohmann::json& answer) {
  const nlohmann::json changes = answer.value("changes", nlohmann::json::array());
  nlohmann::json told = nlohmann::json::array();
  for (const nlohmann::json& change : changes) {
    const bool is_order = string_member(change, "kind") == "order";
    const auto comes_or_goes = [&](const nlohmann::json& other) {
      return string_member(other, "kind") == string_member(change, "name") &&
             string_member(other, "change") != "changed";
    };
    if (!is_order || std::none_of(changes.begin(), changes.end(), comes_or_goes)) told.push_back(change);
  }
  return told;
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& about, const std::string& example) {
  CLI::App* command = app.add_subcommand(name, about);
  command->fallthrough();
  command->footer("Example: " + example);
  return command;
}

}  // namespace tidegate::cli
