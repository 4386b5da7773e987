// SPDX-License-Identifier: Apache-2.0
// Refusals: the last candidates that were refused, with each plane's reason. They are in <state>/refused.json too, so
// that an operator still finds them after control was started again.
//
// Threads: one.
#pragma once

#include <cstdint>
#include <deque>
#include <nlohmann/json.hpp>
#include <string>

namespace tidegate {

class Refusals {
 public:
  // Reads those of the process before. What is no such file counts as none, with a line in the log.
  explicit Refusals(std::string state_dir);

  // `record`: an object with the number `candidate`. The log tells if it cannot be written; then it is known until the
  // end of the process.
  void add(nlohmann::json record);
  nlohmann::json newest_first() const;     // an array
  nlohmann::json find(uint64_t id) const;  // null: it is not known

 private:
  std::string state_dir_;
  std::deque<nlohmann::json> records_;  // the newest last
};

}  // namespace tidegate
