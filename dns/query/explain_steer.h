// SPDX-License-Identifier: Apache-2.0
// The details of a steered answer, for people: the candidates of a steer, and the steps by which one was chosen.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "conf/model.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"
#include "dns/query/tables.h"
#include "dns/steer/choose.h"

namespace tidegate::dns {

// Null for no site.
nlohmann::json site_name(const Model& model, uint32_t site);
const char* name_of(SteerPolicy policy);
// "the nearest site that has a usable target"
const char* reason_of(SteerPolicy policy);

// A list of {target, address, site, distance_km, weight, state, why}. `from` is the client's location.
nlohmann::json tell_candidates(const CompiledSteer& steer, IpAddress::Family family,
                               const std::optional<Location>& from, const Tables& tables);

// A list of {level, text}, in the order of the decisions. A step that decides a steer also has steer, policy and
// (except the first step) its candidates. A step that draws a target has target and `gave`. A step that skips a site
// has site.
nlohmann::json tell_steps(const std::vector<ChoiceStep>& steps, IpAddress::Family family,
                          const std::optional<Location>& from, const Tables& tables);

}  // namespace tidegate::dns
