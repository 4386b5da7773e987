// SPDX-License-Identifier: Apache-2.0
// The part of explain that describes a pool: its backends as they are now, and which of them a request goes to.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "conf/model/pool.h"
#include "l7/plan.h"
#include "l7/wire/message.h"

namespace tidegate::l7 {

struct PolicyWords {
  const char* name;
  // the reason, for a policy that decides at the moment of the request; empty: the policy decides by a hash
  const char* reason;
};
PolicyWords policy_words(PoolPolicy policy);

// The backends that the request may be sent to. `split_pool` is the index in the Model of the pool that a policy has
// chosen instead of the route's; kNone if no policy has. A route's labels apply unless no backend with them may be
// used.
const BackendPool& pool_for_route(const Plan& plan, uint32_t route, uint32_t split_pool);

// Adds "pool", "policy", "eligible", "backend", "reason" and further facts about the pool. Changes nothing.
void explain_pool(const Plan& plan, uint32_t route, const RequestHead& request, std::string_view client,
                  uint32_t split_pool, nlohmann::json& answer);

}  // namespace tidegate::l7
