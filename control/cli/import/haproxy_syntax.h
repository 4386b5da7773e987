// SPDX-License-Identifier: Apache-2.0
// The syntax of HAProxy's configuration: sections of lines of words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace tidegate::cli {

struct HaproxyLine {
  uint32_t number = 0;
  std::vector<std::string> words;

  const std::string& word(size_t i) const;  // empty if there are fewer
  std::string text() const;
  bool has(const std::string& wanted) const;
  // The word after `key`; empty if there is none.
  std::string after(const std::string& key) const;
};
struct HaproxySection {
  HaproxyLine head;
  std::vector<HaproxyLine> lines;
};

// Any bytes are safe. The Error says what is wrong, with the line.
Result<std::vector<HaproxySection>> parse_haproxy(std::string_view text);

}  // namespace tidegate::cli
