// SPDX-License-Identifier: Apache-2.0
// A bond: several devices used as one, by DPDK's bonding. It has the MAC address of its first member, also when that is
// gone. It configures and starts its members itself. DPDK's drivers of kernel interfaces do not report that a link is
// down, so the caller takes such a member out. Control thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/result.h"
#include "l4/wire.h"

namespace tidegate::l4 {

// The state of one member of a bond, as the bond reports it.
struct BondMemberState {
  bool used = false;           // frames leave and are accepted by it; with active_backup of one member at most
  std::optional<Mac> partner;  // the system that answers by LACP
};

// `mode`: active_backup, balance or lacp, as in the configuration. All modes but active_backup choose the member by the
// flow: by addresses and ports. Returns the bond's DPDK port. An Error: DPDK refuses the member.
Result<uint16_t> make_bond(const std::string& name, const std::string& mode, uint16_t first_member);
// While the bond runs, no worker may use it.
Result<void> add_to_bond(uint16_t bond, uint16_t member);
void take_from_bond(uint16_t bond, uint16_t member);
// After its device was closed. The members are left to the caller.
void free_bond(const std::string& name);
BondMemberState state_of_member(const std::string& mode, uint16_t bond, uint16_t member);

}  // namespace tidegate::l4
