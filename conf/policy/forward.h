// SPDX-License-Identifier: Apache-2.0
// The keys of authenticate: forward.
#pragma once

#include "conf/checks.h"
#include "conf/fields.h"

namespace tidegate {

const Section& forward_section();
// `p`: the index of a policy that has the section.
void check_forward(Checks& checks, size_t p);

}  // namespace tidegate
