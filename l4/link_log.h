// SPDX-License-Identifier: Apache-2.0
// LinkLog: log lines about the links: stations that claim our addresses, and backends that cannot be reached. Main
// thread.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/ip.h"
#include "l4/conflict_board.h"
#include "l4/plan/forwarding.h"
#include "l4/ports.h"

namespace tidegate::l4 {

class LinkLog {
 public:
  // At most once a minute per address, however often a station claims it.
  void say_conflicts(const std::vector<AddressConflict>& conflicts, const std::vector<Port>& ports, uint64_t now_ns);
  // Names the backends that are cut off since the last call, and those that no longer are. 16 lines at most.
  void say_who_is_cut_off(const ForwardingTables& tables, const BackendIds& backends);

 private:
  std::map<IpAddress, uint64_t> said_conflicts_;  // when the conflict of each address was last logged
  std::set<std::string> cut_off_;                 // backends that were cut off at the last call
};

}  // namespace tidegate::l4
