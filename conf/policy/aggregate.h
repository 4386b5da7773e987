// SPDX-License-Identifier: Apache-2.0
// The keys of aggregate: the answers of several backends become one JSON object.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "conf/model/common.h"
#include "conf/model/policy.h"

namespace tidegate {

struct AggregatePart {
  std::string name;  // the member of the answer
  uint32_t pool = kNone;
  std::string path = "/";                                  // a text with variables
  std::vector<std::pair<std::string, std::string>> query;  // parameters; the values are texts with variables
  std::string host;                                        // a text with variables; empty: the client's
  bool required = true;                                    // if it fails, there is no answer
  std::string fallback;                                    // JSON that replaces the part if it fails; empty: null
  // statuses of a required part that are passed on to the client
  std::vector<uint32_t> pass_statuses;
};

struct AggregatePolicy final : PolicyPart {
  std::vector<AggregatePart> parts;
  uint64_t timeout_ms = 5'000;               // of all parts together
  uint64_t most = 256 * 1024;                // most bytes of each part's body
  std::vector<std::string> request_headers;  // fields of the client's request that each part gets
  std::string errors = "errors";             // the member that names the parts which failed; empty: none
};

}  // namespace tidegate
