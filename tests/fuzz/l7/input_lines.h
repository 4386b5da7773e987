// SPDX-License-Identifier: Apache-2.0
// InputLines: a fuzzer's input, read line by line. The rest is the body.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

namespace tidegate::l7 {

class InputLines {
 public:
  InputLines(const uint8_t* data, size_t bytes) : rest_(reinterpret_cast<const char*>(data), bytes) {}

  // The next line without its end. Empty if there is none.
  std::string line() {
    const size_t end = std::min(rest_.find('\n'), rest_.size());
    std::string taken(rest_.substr(0, end));
    rest_.remove_prefix(std::min(end + 1, rest_.size()));
    return taken;
  }
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
};

}  // namespace tidegate::l7
