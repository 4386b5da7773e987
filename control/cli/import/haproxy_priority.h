// SPDX-License-Identifier: Apache-2.0
// Classes of HAProxy's queues as priorities of ours. HAProxy has thousands of classes, and we have three priorities.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "control/cli/import/haproxy_syntax.h"
#include "core/result.h"

namespace tidegate::cli {

class HaproxyPriorities {
 public:
  HaproxyPriorities() = default;
  // The first classes of the file that are before and behind the usual one.
  explicit HaproxyPriorities(const std::vector<HaproxySection>& sections);

  // Whether a rule is `set-priority-class` or `set-priority-offset`, of http-request or tcp-request content.
  static bool is_rule(const HaproxyLine& line);
  // What a rule sets: a value of queue_priority. Error: why there is no such value.
  static Result<std::string> read(const HaproxyLine& line);
  // The Error says which order is lost: an earlier line has another class on the same side of the usual one.
  Result<void> keeps_order(const HaproxyLine& line) const;

 private:
  struct First {
    int64_t set = 0;
    uint32_t line = 0;
  };
  std::optional<First> before_, behind_;
};

}  // namespace tidegate::cli
