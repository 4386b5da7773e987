// SPDX-License-Identifier: Apache-2.0
// What a deadline policy leaves with an exchange: the field by which the backend learns how much time is left.
#pragma once

#include <cstdint>
#include <string>

namespace tidegate::l7::policy {

struct DeadlineTerms {
  std::string field, lower_field;  // as the document spells it, and in lower case
  uint64_t unit_ns;                // of its numbers
};

}  // namespace tidegate::l7::policy
