// SPDX-License-Identifier: Apache-2.0
// The order for a probe as control sends it, and the answer. Pure.
//
//   POST /probe
//   {"pool":"web","backend":"web1","protocol":"tcp","timeout_ms":1000,"payload":"00ff","targets":[{"vip":"192.0.2.1","port":443}]}
//   200 {"results":[{"vip":"192.0.2.1","port":443,"end":"answered","why":"...","reply":"00ff"}]}
//
// `payload` and `reply` are hexadecimal, and only for UDP. There is one result for each target, in the same order.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/ip.h"
#include "core/result.h"
#include "l4/probe/board.h"

namespace tidegate::l4 {

struct ProbeRequest {
  std::string pool, backend;
  uint8_t protocol = kProtocolTcp;
  std::string payload;  // raw bytes
  uint64_t timeout_ms = 1'000;
  std::vector<Endpoint> targets;  // not empty; at most kMaxProbeTargets
};

// An Error names the fault of the order in a sentence.
Result<ProbeRequest> read_probe_request(std::string_view body);

struct ProbeResultLine {
  Endpoint target;
  ProbeEnd end = ProbeEnd::timeout;
  std::string reply;  // raw bytes
};
std::string write_probe_results(const std::vector<ProbeResultLine>& results);

}  // namespace tidegate::l4
