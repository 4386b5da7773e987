// SPDX-License-Identifier: Apache-2.0
// The part of ForwardingBuilder that adds pools: their backends, how to reach them, and their Maglev tables.
#include <fmt/format.h>

#include <algorithm>

#include "conf/found_backends.h"
#include "conf/limits.h"
#include "conf/maglev.h"
#include "conf/model/pool.h"
#include "core/crypto.h"
#include "l4/plan/forwarding_build.h"
#include "l4/plan/next_hop.h"

namespace tidegate::l4 {
namespace {

// A digest of the slots by name, because ids differ from node to node. It covers the names in order, then each slot as
// an index into them.
std::string digest_by_name(std::vector<MaglevMember> members, const std::vector<uint16_t>& slots) {
  std::sort(members.begin(), members.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  std::vector<uint16_t> place_of(kMaxBackends, kMaglevEmpty);
  std::string text;
  for (size_t place = 0; place < members.size(); ++place) {
    place_of[members[place].index] = static_cast<uint16_t>(place);
    text += members[place].name;
    text += '\n';
  }
  size_t at = text.size();
  text.resize(at + slots.size() * 2);
  for (const uint16_t slot : slots) {
    const uint16_t place = slot == kMaglevEmpty ? kMaglevEmpty : place_of[slot];
    text[at++] = static_cast<char>(place >> 8);
    text[at++] = static_cast<char>(place & 0xff);
  }
  return sha256_hex(text);
}

}  // namespace

Result<NeighbourId> ForwardingBuilder::add_neighbour(Build& build, const IpAddress& address, uint16_t port) {
  const std::optional<NeighbourId> id = neighbour_ids_.intern(address);
  if (!id) return fail(fmt::format("more than {} addresses of backends and gateways", kMaxNeighbours));
  if (!build.neighbour_is_added[index_of(*id)]) {
    build.neighbour_is_added[index_of(*id)] = true;
    build.neighbours.push_back({*id, address, port});
  }
  return *id;
}

Result<void> ForwardingBuilder::add_backends(Build& build, uint32_t pool_index) {
  const auto [known, is_new] = build.ids_of_pool.try_emplace(pool_index);
  if (!is_new) return {};
  std::vector<BackendId>& ids = known->second;
  const Pool& pool = build.model.pools[pool_index];
  for (uint32_t i = 0; i < pool.backends.size(); ++i) {
    const Backend& backend = pool.backends[i];
    const std::optional<BackendId> id = backend_ids_.intern({pool.name, backend.name});
    if (!id) return fail(fmt::format("more than {} backends behind the services of one node", kMaxBackends));
    ids.push_back(*id);
    std::vector<BackendEntry>& backends = build.tables->backends;
    if (backends.size() <= index_of(*id)) backends.resize(index_of(*id) + 1);
  }
  const TunnelConfig tunnel = tunnel_of(build, pool_index);
  const L4Node& node = build.node.l4;
  // Handles the families one after the other. So the next hops of one family are next to each other in memory.
  for (const uint8_t family : kFamilies) {
    const auto bit = static_cast<uint8_t>(1 << family);
    for (uint32_t i = 0; i < pool.backends.size(); ++i) {
      const IpAddress* address = address_towards(node, pool.backends[i], tunnel, family);
      if (address == nullptr) continue;
      const Hop hop = next_hop_of(node, *address, build.outages);
      const Result<NeighbourId> neighbour = add_neighbour(build, hop.address, hop.port);
      if (!neighbour) return neighbour.error();
      BackendEntry& entry = build.tables->backends[index_of(ids[i])];
      (family == 4 ? entry.neighbour_v4 : entry.neighbour_v6) = *neighbour;
      if (is_cut_off(build, hop.address, hop.port)) entry.cut_off |= bit;
      if (tunnel.mode == Forwarding::l2dsr) continue;
      entry.tunnelled |= bit;
      std::vector<Action>& tunnels = build.tables->tunnels;
      const size_t index = index_of(ids[i]) * 2 + (family == 6 ? 1 : 0);
      if (tunnels.size() <= index) tunnels.resize(index + 1);
      const OuterSource source = *outer_source(node, hop.port, address->family);
      tunnels[index] = make_action(tunnel, family, source, *address, pool.backends[i].mtu);
      if (tunnels[index].is_long()) entry.long_header |= bit;
    }
  }
  keep_flows(build, pool_index);
  const auto before = served_pools_.find(pool.name);
  if (before == served_pools_.end() || before->second != tunnel) {
    build.staged.served_pools.insert_or_assign(pool.name, tunnel);
  }
  return {};
}

TunnelConfig ForwardingBuilder::tunnel_of(const Build& build, uint32_t pool_index) const {
  if (const auto used = build.tunnels.find(pool_index); used != build.tunnels.end()) return used->second;
  const auto former = served_pools_.find(build.model.pools[pool_index].name);
  return former == served_pools_.end() ? TunnelConfig{} : former->second;
}

// The board describes the neighbours of the tables in force. Nothing is known yet about any other neighbour.
bool ForwardingBuilder::is_cut_off(const Build& build, const IpAddress& next_hop, uint16_t port) const {
  if (is_down(build.outages, port)) return true;
  if (build.outages.board == nullptr || !neighbours_) return false;
  const uint32_t id =
      neighbours_->id_of.find(LookupKey::of_address(static_cast<uint8_t>(next_hop.family), words_of(next_hop)));
  return id != LookupTable::kAbsent && build.outages.board->is_silent(NeighbourId(id));
}

// A backend keeps the flows of a family if it has an address in that family and can be reached. If none of the pool's
// usable backends can be reached, the fault may be on our side. Then all count as reachable, and flows stay where they
// are.
void ForwardingBuilder::keep_flows(Build& build, uint32_t pool_index) {
  const Pool& pool = build.model.pools[pool_index];
  const std::vector<BackendId>& ids = build.ids_of_pool.at(pool_index);
  const TunnelConfig tunnel = tunnel_of(build, pool_index);
  for (const uint8_t family : kFamilies) {
    const auto bit = static_cast<uint8_t>(1 << family);
    const auto reaches = [&](size_t i) {
      return address_towards(build.node.l4, pool.backends[i], tunnel, family) != nullptr;
    };
    const auto entry_of = [&](size_t i) -> BackendEntry& { return build.tables->backends[index_of(ids[i])]; };
    bool any = false;
    for (uint32_t i = 0; i < pool.backends.size(); ++i) {
      any = any || (reaches(i) && pool.backends[i].weight != 0 && build.snapshot.usable(pool_index, i) &&
                    !entry_of(i).is_cut_off(family));
    }
    for (uint32_t i = 0; i < pool.backends.size(); ++i) {
      BackendEntry& entry = entry_of(i);
      if (!any) entry.cut_off &= static_cast<uint8_t>(~bit);
      const bool serves = build.snapshot.pools[pool_index].backends[i].state != BackendState::down ||
                          build.snapshot.usable(pool_index, i);
      const bool keeps = serves && reaches(i) && !entry.is_cut_off(family);
      if (keeps) entry.keeping |= bit;
    }
  }
}

// A service that moved to another pool leaves flows behind. They stay with their backends while the old pool is in the
// configuration, even if no service uses it any more.
Result<void> ForwardingBuilder::add_former_pools(Build& build) {
  size_t found = 0;
  for (uint32_t i = 0; i < build.model.pools.size(); ++i) {
    if (!served_pools_.contains(build.model.pools[i].name)) continue;
    ++found;
    if (Result<void> added = add_backends(build, i); !added) return added;
  }
  build.staged.pools_are_gone = found < served_pools_.size();
  return {};
}

std::shared_ptr<const PoolTable> ForwardingBuilder::pool_table(const Build& build, uint32_t pool_index,
                                                               uint8_t family) {
  const Pool& pool = build.model.pools[pool_index];
  const std::vector<BackendId>& ids = build.ids_of_pool.at(pool_index);
  const uint32_t slots = build.node.l4.maglev_slots;
  const TunnelConfig tunnel = tunnel_of(build, pool_index);
  std::vector<MaglevMember> members;
  std::string content = fmt::format("{}\n{}\n", pool.name, slots);
  for (uint32_t i = 0; i < pool.backends.size(); ++i) {
    const Backend& backend = pool.backends[i];
    if (address_towards(build.node.l4, backend, tunnel, family) == nullptr || !build.snapshot.usable(pool_index, i))
      continue;
    if (build.tables->backend(ids[i]).is_cut_off(family) || is_on_standby(build.snapshot, pool_index, i)) continue;
    const auto id = static_cast<uint16_t>(ids[i]);
    members.push_back({backend.name, backend.weight, id});
    fmt::format_to(std::back_inserter(content), "{} {} {}\n", backend.name, backend.weight, id);
  }
  if (const auto known = tables_.find(content); known != tables_.end()) return known->second;

  auto table = std::make_shared<PoolTable>();
  table->content = content;
  table->slots = changing_.build(pool.name, family, members, slots, table_key_);
  ++maglev_tables_built_;
  table->digest = digest_by_name(members, table->slots);
  tables_.emplace(content, table);
  return table;
}

}  // namespace tidegate::l4
