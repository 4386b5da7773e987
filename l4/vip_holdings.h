// SPDX-License-Identifier: Apache-2.0
// Reports of a forwarder about VIP addresses that it shares with other forwarders (conf/vip_holder.h): log lines,
// status and metrics. Main thread.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

// Logs which addresses this node's forwarder takes over and which it leaves to another one, one line for each
// direction.
void say_what_changed_hands(const ForwardingTables& before, const ForwardingTables& after, const std::string& node);

// The numbers of shared addresses: {"held": 2, "standby": 0, "left": 0}. `left` are those on standby that the forwarder
// has left by itself, because another forwarder claims them and control hears no leader.
nlohmann::json holdings_status(const ForwardingTables& tables, const std::string& node);
// The numbers of holdings_status() as tidegate_l4_shared_vip_addresses{role="held", "standby" or "left"}.
void append_holdings(std::string& out, const ForwardingTables& tables, const std::string& node);

}  // namespace tidegate::l4
