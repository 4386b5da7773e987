// SPDX-License-Identifier: Apache-2.0
// The terms that a deadline policy stores in an exchange: the field that tells the backend how much time is left.
#pragma once

#include <cstdint>
#include <string>

namespace tidegate::l7::policy {

struct DeadlineTerms {
  std::string field, lower_field;  // as the document spells it; and in lower case
  uint64_t unit_ns;                // unit of its numbers
};

}  // namespace tidegate::l7::policy
