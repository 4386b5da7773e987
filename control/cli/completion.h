// SPDX-License-Identifier: Apache-2.0
// Completion of command lines in bash and zsh. The shell asks this program for the possible words at the cursor. So new
// commands and options are completed without a change here, and names come from the running control.
#pragma once

#include <string>
#include <vector>

#include "control/cli/cli.h"

namespace tidegate::cli {

// A shell's script calls `tidegate __complete WORDS…`. The last word is the one at the cursor.
constexpr const char* kCompleteWord = "__complete";

// The possible replacements of the last word, sorted. Empty if only the user knows, or if a file is expected. Asks the
// control at most once, and continues without it if it does not answer.
std::vector<std::string> complete(const CLI::App& app, Cli& cli, const std::vector<std::string>& words);

void add_completion_command(CLI::App& app, Cli& cli);

}  // namespace tidegate::cli
