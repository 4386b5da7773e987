// SPDX-License-Identifier: Apache-2.0
// Policies that read who the client is, where nothing authenticates.
#pragma once

#include "conf/checks.h"

namespace tidegate {

// Warns of policies that read who the client is, where no `authenticate` finds it out. Reading it has a meaning for
// clients that are not known too, so a policy that is bound to many routes is right if one of them authenticates. A
// rule of roles refuses there, so each of its routes has to.
void warn_of_unknown_clients(Checks& warnings);

}  // namespace tidegate
