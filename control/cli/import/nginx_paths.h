// SPDX-License-Identifier: Apache-2.0
// The locations of a server of nginx as routes. nginx takes an exact location first, then the longest prefix, and then
// asks regular expressions in the order of the file, unless the prefix is ^~. A prefix is of characters there ("/adm"
// has
// "/admin"), and of whole segments here.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "control/cli/import/cases.h"

namespace tidegate::cli {

struct NginxLocation {
  enum class Kind : uint8_t { exact, prefix, first_prefix /* ^~ */, regex };
  Kind kind = Kind::prefix;
  std::string text;    // the path; of a regex: an expression that takes the whole path
  std::string within;  // of a regex: the prefix around it
  Cases cases;
  bool has_regexes = false;  // inside
  bool passes = false;       // to a backend: then nginx adds the slash that a prefix ends with
};

// The cases of each path pattern. `others` answers what no location takes. Empty: they would be too many.
std::map<std::string, Cases> nginx_paths(const std::vector<NginxLocation>& locations, const Cases& others);

}  // namespace tidegate::cli
