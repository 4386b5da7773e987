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
  // Reads the refusals that the previous process wrote. A file that cannot be read counts as empty and is logged.
  explicit Refusals(std::string state_dir);

  // `record`: an object with the number `candidate`. If the record cannot be written, a log line says so; then it is
  // known until the end of the process.
  void add(nlohmann::json record);
  nlohmann::json newest_first() const;     // an array
  nlohmann::json find(uint64_t id) const;  // null: it is not known

 private:
  std::string state_dir_;
  std::deque<nlohmann::json> records_;  // the newest last
};

}  // namespace tidegate
