// SPDX-License-Identifier: Apache-2.0
// Manual pages (man(7)). They are made from the same tables as --help and the key reference.
#pragma once

#include <string>
#include <string_view>

namespace CLI {
class App;
}

namespace tidegate {

struct ManualPage {
  std::string name;     // "tidegate-l7"
  int section = 8;      // 1: commands of users, 5: formats of files, 8: daemons
  std::string purpose;  // half a sentence, for `whatis`
};

// The page of a program: its description, commands and options.
std::string manual_of(const CLI::App& app, const ManualPage& page);

// The page of edge.yaml: all keys.
std::string manual_of_keys();

// Adds `--print-manual`, which --help does not list. It prints the page and ends the program.
void add_manual_option(CLI::App& app, const ManualPage& page);

}  // namespace tidegate
