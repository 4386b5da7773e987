// SPDX-License-Identifier: Apache-2.0
// Common parts of all commands that change the configuration.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "control/cli/cli.h"

namespace tidegate::cli {

struct ChangeOptions {
  bool dry_run = false, wait = false, allow_restart = false;
  std::string require = "reachable";
  uint64_t confirm_ms = 0;
  std::string comment, if_match = "*";
};

void add_change_options(CLI::App* command, ChangeOptions& options);
// The parameters of the call: "?dry_run=true&comment=...".
std::string change_query(const ChangeOptions& options);
void add_if_match(CLI::App* command, ChangeOptions& options);

// Prints "version 7: 2 objects changed" and a line for each object. Waits if the options say so.
void print_outcome(Cli& cli, const nlohmann::json& answer, const ChangeOptions& options);

// Returns the If-Match for a text that this tool prints: *, an ETag, a version's number, or a digest or its beginning.
// If the text names no version, sets exit status 1 and returns nothing.
std::optional<std::string> entity_tag_for(Cli& cli, const std::string& text);

}  // namespace tidegate::cli
