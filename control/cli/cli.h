// SPDX-License-Identifier: Apache-2.0
// Cli: common parts of all commands: access to the API, printing, and the exit status.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/http_client.h"

namespace tidegate::cli {

enum ExitStatus : int { kDone = 0, kRefused = 1, kMisuse = 2, kUnreachable = 3 };

struct Cli {
  // Common options
  std::string api = "/run/tidegate/control.sock";  // a socket's path, or http(s)://ADDRESS:PORT
  std::string ca_file;                             // roots for https; empty: the system's
  std::string token_file;
  std::string output = "human";
  int exit_status = kDone;  // set by the command that ran

  bool json() const { return output == "json"; }
};

struct ApiRequest {
  std::string method = "GET";
  std::string target;
  std::string content_type;
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
  uint64_t timeout_ms = 75'000;  // longer than the longest wait of the API
};

// Returns the target of --api, and sets the token's header in `headers`. If --api is malformed, sets exit status 2 and
// returns nothing.
std::optional<HttpTarget> api_target(Cli& cli, std::vector<std::pair<std::string, std::string>>& headers);

// Returns the API's answer, whatever its status. If there is none, sets the exit status and returns nothing.
std::optional<HttpResponse> call_raw(Cli& cli, ApiRequest request);
// Returns the JSON of a 2xx. Prints a refusal to stderr (faults with carets into `document`) and sets exit status 1.
std::optional<nlohmann::json> call(Cli& cli, ApiRequest request, const std::string& document = {});
void print_refusal(Cli& cli, const HttpResponse& response, const std::string& document);

// Returns "?key=value&..." for the values that are not empty.
std::string query(const std::vector<std::pair<std::string, std::string>>& parameters);

// Counts changes as people do. The order of a list does not count, because it follows from its elements.
nlohmann::json changes_for_people(const nlohmann::json& answer);

// Adds a subcommand that also knows the common options. `example` is the end of its help text.
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& about, const std::string& example);

void add_config_commands(CLI::App& app, Cli& cli);   // check keys apply get diff rollback versions audit
void add_operate_commands(CLI::App& app, Cli& cli);  // drain undrain quota purge
// Explains what the forwarder of this host would do with the frames of a file.
struct PcapArguments {
  std::string file, run_dir = "/run/tidegate", port;
  bool to_us = false;
};
void explain_pcap(Cli& cli, const PcapArguments& arguments);  // in l4_command.cc

void add_observe_commands(CLI::App& app, Cli& cli);  // status health certificates explain watch
void add_backup_commands(CLI::App& app, Cli& cli);   // backup restore
void add_records_command(CLI::App& app, Cli& cli);   // records
void add_hash_command(CLI::App& app, Cli& cli);      // hash-lab
void add_init_command(CLI::App& app, Cli& cli);      // init
void add_import_command(CLI::App& app, Cli& cli);    // import
void add_upgrade_command(CLI::App& app, Cli& cli);   // upgrade
void add_l4_command(CLI::App& app, Cli& cli);        // l4
void add_run_command(CLI::App& app, Cli& cli);       // run

}  // namespace tidegate::cli
