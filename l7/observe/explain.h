// SPDX-License-Identifier: Apache-2.0
// Explain: why a request goes where it goes. It asks the same functions and the same state that serve requests.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cache/cache.h"
#include "core/http_server.h"
#include "core/result.h"
#include "l7/plan.h"

namespace tidegate::l7 {

struct PolicyWords {
  const char* name;
  const char* reason;  // of a policy that decides at the moment of the request; empty: it is a hash
};
PolicyWords policy_words(PoolPolicy policy);

// GET /explain?client=ADDRESS&url=URL[&method=M]. What a request of this client would meet; nothing is changed by
// asking. `cache` may be null. An Error: a parameter is missing or malformed.
Result<nlohmann::json> explain_request(const Plan& plan, const cache::Cache* cache, const HttpRequest& request);

}  // namespace tidegate::l7
