// SPDX-License-Identifier: Apache-2.0
// The keys of split: which of several pools gets a request, by weight or by what the request says.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "conf/model/common.h"
#include "conf/model/policy.h"

namespace tidegate {

struct SplitVariant {
  std::string name;
  uint32_t pool = kNone;
  uint32_t weight = 0;              // its share of the requests that match no `when`
  std::string when;                 // "header:NAME", "cookie:NAME", "claim:NAME"; empty: by weight alone
  std::vector<std::string> values;  // values of `when`; empty: any value
  // As those of a route (conf/model.h), for its requests and their answers.
  std::vector<std::pair<std::string, std::string>> request_headers = {}, response_headers = {};
};

struct SplitPolicy final : PolicyPart {
  std::vector<SplitVariant> variants;
  std::vector<std::string> sticky;  // like `by` of a limit; empty: the choice is made anew for each request
};

// One word of `when`.
struct SplitCondition {
  enum class What : uint8_t { header, cookie, claim };
  What what;
  std::string name;  // of a header: in lower case
};
std::optional<SplitCondition> parse_split_condition(std::string_view word);

}  // namespace tidegate
