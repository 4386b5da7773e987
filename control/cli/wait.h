// SPDX-License-Identifier: Apache-2.0
// --wait: a command that returns when the planes have done what it asked.
#pragma once

#include <nlohmann/json.hpp>

#include "control/cli/cli.h"

namespace tidegate::cli {

// Waits for a version and words (0: none in particular) and tells how it went; exit status 1 when a plane did not
// follow.
void wait_until_applied(Cli& cli, uint64_t version, uint64_t words);
// The same for an answer that already holds the outcome of the waiting.
void tell_applied(Cli& cli, const nlohmann::json& outcome);

}  // namespace tidegate::cli
