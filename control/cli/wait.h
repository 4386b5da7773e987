// SPDX-License-Identifier: Apache-2.0
// --wait: the command returns when the planes have done what it asked for.
#pragma once

#include <nlohmann/json.hpp>

#include "control/cli/cli.h"

namespace tidegate::cli {

// Waits for a version and a number of live state (0: any) and prints the outcome. Sets exit status 1 if a plane did not
// follow.
void wait_until_applied(Cli& cli, uint64_t version, uint64_t words);
// The same for an answer that has the outcome already.
void print_applied(Cli& cli, const nlohmann::json& outcome);

}  // namespace tidegate::cli
