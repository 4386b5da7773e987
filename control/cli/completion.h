// SPDX-License-Identifier: Apache-2.0
// Completion of command lines in bash and zsh. The shell asks this program what may stand at the cursor, so that a new
// command or option is completed without a change here, and names come from the live control.
#pragma once

#include <string>
#include <vector>

#include "control/cli/cli.h"

namespace tidegate::cli {

// A shell's script calls `tidegate __complete WORDS…`; the last word is the one at the cursor.
constexpr const char* kCompleteWord = "__complete";

// What may stand in place of the last word, sorted. Empty if only the user knows, or a file is wanted. Asks the control
// at most once, and does without it if it does not answer.
std::vector<std::string> complete(const CLI::App& app, Cli& cli, const std::vector<std::string>& words);

void add_completion_command(CLI::App& app, Cli& cli);

}  // namespace tidegate::cli
