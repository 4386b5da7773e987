// SPDX-License-Identifier: Apache-2.0
// The keys of authenticate: signatures.
#pragma once

#include "conf/checks.h"
#include "conf/fields.h"

namespace tidegate {

const Section& signatures_section();
// `p`: the index of a policy that has the section.
void check_signatures(Checks& checks, size_t p);

}  // namespace tidegate
