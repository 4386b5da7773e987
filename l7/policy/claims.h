// SPDX-License-Identifier: Apache-2.0
// Claims of a token that are found by a name, or by a path into nested objects.
//
// Threads: any.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "l7/policy/json_scan.h"
#include "l7/wire/arena.h"

namespace tidegate::l7::policy {

// The claim with exactly that name, in which dots have no meaning (`https://id.test/roles`). If there is none, the
// claim at the end of the path that the dots separate (`realm_access.roles`). Nothing if there is none, or if a name on
// the way occurs twice.
std::optional<JsonView> find_claim(std::string_view claims, std::string_view name, Arena& arena);

// True if the claim is one of these texts, or a list that contains one of them. A number and `true` are compared as
// they are written.
bool claim_has(const JsonView& claim, const std::vector<std::string>& wanted, Arena& arena);

}  // namespace tidegate::l7::policy
