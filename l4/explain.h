// SPDX-License-Identifier: Apache-2.0
// explain: where a client's packet goes and why. It uses the tables and functions that forward packets.
#pragma once

#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

struct ExplainQuestion {
  std::optional<IpAddress> client;
  std::optional<uint16_t> client_port;
  std::string vip;  // name or address
  uint16_t port = 0;
  std::string protocol = "tcp";
};

// Returns the flow in the table of its worker.
using FindFlow = std::function<std::optional<FlowEntry>(uint64_t hash)>;

// Returns {"plane":"l4","service","pool","decision","backend","eligible":[...],"reason"}, and "second_chance" if
// packets of a connection that did not begin here would also name another backend. Without a client port it names the
// backend only if the service keys flows by client. "decision" is "refused" if a list refuses the client. "acl" is the
// list that decided, "limits" are the service's limits, and "reset_unknown" says whether packets of unknown flows are
// answered by RST. Each is there only if the service has it.
nlohmann::json explain(const ForwardingTables& tables, const FlowHasher& hasher, const BackendIds& backends,
                       const FindFlow& find_flow, const ExplainQuestion& question);

}  // namespace tidegate::l4
