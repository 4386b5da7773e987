// SPDX-License-Identifier: Apache-2.0
// --wait: the command returns when the planes have applied its change.
#pragma once

#include <nlohmann/json.hpp>

#include "control/cli/cli.h"

namespace tidegate::cli {

// Waits for a version and a sequence of the live state (0: any) and prints the outcome. Sets exit status 1 if a plane
// did not follow.
void wait_until_applied(Cli& cli, uint64_t version, uint64_t words);
// Prints the outcome of an answer that already has it.
void print_applied(Cli& cli, const nlohmann::json& outcome);

}  // namespace tidegate::cli
