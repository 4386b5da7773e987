// SPDX-License-Identifier: Apache-2.0
// The part of explain that tells of a pool: its backends as they are now, and which of them a request goes to.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "l7/plan.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct PolicyWords {
  const char* name;
  const char* reason;  // of a policy that decides at the moment of the request; empty: it is a hash
};
PolicyWords policy_words(PoolPolicy policy);

// The backends that the request may be sent to. `split_pool` is an index in the Model: what a policy has chosen instead
// of the route's pool; kNone: none has. A route's labels hold unless none with them may be used.
const BackendPool& pool_for_route(const Plan& plan, uint32_t route, uint32_t split_pool);

// Adds "pool", "policy", "eligible", "backend", "reason" and what else the pool has. Nothing is changed by asking.
void explain_pool(const Plan& plan, uint32_t route, const RequestHead& request, std::string_view client,
                  uint32_t split_pool, nlohmann::json& answer);

}  // namespace tidegate::l7
