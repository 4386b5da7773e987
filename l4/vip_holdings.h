// SPDX-License-Identifier: Apache-2.0
// What a forwarder reports about VIP addresses that it shares with others (conf/vip_holder.h): in its log, its status
// and its metrics. Main thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

// Logs which addresses this node's forwarder takes over and which it leaves to another one, one line for each
// direction.
void say_what_changed_hands(const ForwardingTables& before, const ForwardingTables& after, const std::string& node);

// How many addresses it holds, for how many it stands by, and how many of these it left by itself, because another
// forwarder claims them and control hears no leader: {"held": 2, "standby": 0, "left": 0}.
nlohmann::json holdings_status(const ForwardingTables& tables, const std::string& node);
// The same as tidegate_l4_shared_vip_addresses{role="held", "standby" or "left"}.
void append_holdings(std::string& out, const ForwardingTables& tables, const std::string& node);

}  // namespace tidegate::l4
