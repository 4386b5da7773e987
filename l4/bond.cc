// SPDX-License-Identifier: Apache-2.0
#include "l4/bond.h"

#include <fmt/format.h>
#include <rte_errno.h>
#include <rte_eth_bond.h>
#include <rte_eth_bond_8023ad.h>
#include <rte_ethdev.h>

#include <algorithm>
#include <array>

namespace tidegate::l4 {
namespace {

// Bits of a port's state in LACP (IEEE 802.1AX §6.4.2.3).
constexpr uint8_t kCollecting = 1 << 4, kDistributing = 1 << 5;

uint8_t mode_number(const std::string& mode) {
  if (mode == "lacp") return BONDING_MODE_8023AD;
  return mode == "balance" ? BONDING_MODE_BALANCE : BONDING_MODE_ACTIVE_BACKUP;
}

bool is_active(uint16_t bond, uint16_t member) {
  std::array<uint16_t, RTE_MAX_ETHPORTS> active{};
  const int count = rte_eth_bond_active_slaves_get(bond, active.data(), active.size());
  return count > 0 && std::find(active.begin(), active.begin() + count, member) != active.begin() + count;
}

}  // namespace

Result<uint16_t> make_bond(const std::string& name, const std::string& mode, uint16_t first_member) {
  const int bond = rte_eth_bond_create(name.c_str(), mode_number(mode), 0);
  if (bond < 0) return fail(fmt::format("no bond: {}", rte_strerror(-bond)));
  const auto id = static_cast<uint16_t>(bond);
  rte_ether_addr mac{};
  if (mode != "active_backup") rte_eth_bond_xmit_policy_set(id, BALANCE_XMIT_POLICY_LAYER34);
  Result<void> done = add_to_bond(id, first_member);
  // An address that was set stays when the member leaves.
  if (done && (rte_eth_macaddr_get(first_member, &mac) != 0 || rte_eth_bond_mac_address_set(id, &mac) != 0)) {
    done = fail("the bond cannot have the MAC address of its member");
  }
  if (done) return id;
  rte_eth_dev_close(id);
  free_bond(name);
  return done.error();
}

Result<void> add_to_bond(uint16_t bond, uint16_t member) {
  const int status = rte_eth_bond_slave_add(bond, member);
  if (status != 0) return fail(fmt::format("DPDK does not take it as a member of a bond ({})", status));
  return {};
}

void take_from_bond(uint16_t bond, uint16_t member) { rte_eth_bond_slave_remove(bond, member); }

void free_bond(const std::string& name) { rte_eth_bond_free(name.c_str()); }

BondMemberState state_of_member(const std::string& mode, uint16_t bond, uint16_t member) {
  BondMemberState state;
  state.used = is_active(bond, member);
  if (mode == "active_backup") state.used = state.used && rte_eth_bond_primary_get(bond) == member;
  if (mode != "lacp" || !state.used) return state;
  struct rte_eth_bond_8023ad_slave_info info {};
  if (rte_eth_bond_8023ad_slave_info(bond, member, &info) != 0) return state;
  constexpr uint8_t kBoth = kCollecting | kDistributing;
  state.used = (info.actor_state & kBoth) == kBoth;
  const Mac partner = Mac::from(info.partner.system.addr_bytes);
  if (partner != Mac{}) state.partner = partner;
  return state;
}

}  // namespace tidegate::l4
