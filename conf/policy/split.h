// SPDX-License-Identifier: Apache-2.0
// The keys of split: the choice among several pools for a request, by weight or by a value in the request.
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
  // As the same keys of a route (conf/model/route.h), for the variant's requests and their answers.
  std::vector<std::pair<std::string, std::string>> request_headers = {}, response_headers = {};
};

struct SplitPolicy final : PolicyPart {
  std::vector<SplitVariant> variants;
  std::vector<std::string> sticky;  // like `by` of a limit; empty: each request has its own choice
};

// One word of `when`.
struct SplitCondition {
  enum class What : uint8_t { header, cookie, claim };
  What what;
  std::string name;  // of a header: in lower case
};
std::optional<SplitCondition> parse_split_condition(std::string_view word);

}  // namespace tidegate
