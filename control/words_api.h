// SPDX-License-Identifier: Apache-2.0
// Words over REST: operators drain and undrain; anybody who may read sees what is in service, and why not.
#pragma once

#include "control/ledger.h"
#include "control/route_table.h"

namespace tidegate {

void add_word_routes(RouteTable& table, Ledger& ledger);

}  // namespace tidegate
