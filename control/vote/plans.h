// SPDX-License-Identifier: Apache-2.0
// Plans: what the planes make of a version's content, by their own functions, for every node of the document. What a
// plane would refuse is so refused before the commit. Facts of a host (devices, addresses, files by path) are no part
// of it.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "conf/document.h"
#include "conf/fault.h"
#include "conf/model.h"

namespace tidegate {

namespace dns {
struct Authority;
}

// Immutable. A later version takes over what it has in common with an earlier one.
struct Plans {
  std::shared_ptr<const dns::Authority> dns;
};

struct PlannedVersion {
  std::shared_ptr<const Plans> plans;  // null if there is any fault
  std::vector<Fault> faults;           // in files with their place; others with the pointer alone
};

// Pure: any thread. `previous` may be null.
PlannedVersion plan_version(const std::shared_ptr<const Model>& model, const Plans* previous);

// The same, if the two versions differ in one element of the list `kind` alone: planes that it does not concern are not
// asked. Null `plans` without faults: no plane is concerned, and the plans of the previous version go on.
PlannedVersion plan_element(const std::shared_ptr<const Model>& model, std::string_view kind, const Plans* previous);

// Adds what the planes find in a file that was loaded. With any fault its model is null then.
void judge(LoadedFile& loaded);

}  // namespace tidegate
