// SPDX-License-Identifier: Apache-2.0
// A fuzzer's input as header field lines: one "name: value" per line.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "cache/message.h"

namespace tidegate::cache {

inline std::vector<http1::Field> lines_of(const uint8_t* data, size_t bytes) {
  std::string_view rest(reinterpret_cast<const char*>(data), bytes);
  std::vector<http1::Field> fields;
  while (!rest.empty() && fields.size() < http1::kMaxFields) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    const size_t colon = line.find(": ");
    if (colon != std::string_view::npos) fields.push_back({line.substr(0, colon), line.substr(colon + 2)});
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  return fields;
}

}  // namespace tidegate::cache
