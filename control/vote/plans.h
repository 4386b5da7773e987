// SPDX-License-Identifier: Apache-2.0
// Plans: what the planes derive from a version's content, by their own functions, for every node of the document. So a
// version that a plane would refuse is refused before the commit. Facts of a host (devices, addresses, files by path)
// are not part of it.
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

// Immutable. A later version uses the parts that it has in common with an earlier one.
struct Plans {
  std::shared_ptr<const dns::Authority> dns;
};

struct PlannedVersion {
  std::shared_ptr<const Plans> plans;  // null if there is any fault
  std::vector<Fault> faults;           // faults in files have their place; others only the pointer
};

// Pure: any thread. `previous` may be null.
PlannedVersion plan_version(const std::shared_ptr<const Model>& model, const Plans* previous);

// The plans of a version that differs from the earlier one (`before`) only in one element of the list `kind`. Planes
// that do not use the element are not asked. If `plans` is null without faults, no plane is concerned, and the plans of
// the previous version stay valid.
PlannedVersion plan_element(const std::shared_ptr<const Model>& model, std::string_view kind, const Model& before,
                            const Plans* previous);

// Adds the faults that planes find in a loaded file. After any fault its model is null.
void judge(LoadedFile& loaded);

}  // namespace tidegate
