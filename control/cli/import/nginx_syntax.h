// SPDX-License-Identifier: Apache-2.0
// The syntax of nginx's configuration: directives with arguments, and blocks of directives.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate::cli {

struct NginxDirective {
  std::string name;
  std::vector<std::string> arguments;  // without quotes
  std::vector<NginxDirective> block;
  bool has_block = false;
  uint32_t line = 0;

  std::string text() const;  // "listen 443 ssl"
};

constexpr size_t kMaxNginxDepth = 32;  // maximum nesting of blocks

// Any bytes are safe. The Error says what is wrong, with the line.
Result<std::vector<NginxDirective>> parse_nginx(std::string_view text);

}  // namespace tidegate::cli
