// SPDX-License-Identifier: Apache-2.0
#include "l4/link_sets.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "l4/neighbour_wire.h"

namespace tidegate::l4 {
namespace {

std::vector<std::pair<LookupKey, uint32_t>> keys_of(const std::vector<NeighbourTarget>& targets) {
  std::vector<std::pair<LookupKey, uint32_t>> keys;
  keys.reserve(targets.size());
  for (const NeighbourTarget& target : targets) {
    keys.emplace_back(LookupKey::of_address(static_cast<uint8_t>(target.address.family), words_of(target.address)),
                      static_cast<uint32_t>(index_of(target.id)));
  }
  return keys;
}

bool same(const LocalAddress& a, const LocalAddress& b) {
  return a.address == b.address && a.kind == b.kind && a.port == b.port;
}

// If several addresses share a group, the oldest one counts. `set.addresses` must be filled.
void derive_groups(LocalSet& set, const LocalSet* before, uint64_t generation) {
  std::set<std::pair<IpAddress, uint16_t>> known;
  std::vector<std::pair<LookupKey, uint32_t>> keys;
  for (const LocalAddress& local : set.addresses) {
    if (!local.address.is_v6()) continue;
    const IpAddress group = solicited_node(local.address);
    if (!known.emplace(group, local.port).second) continue;
    keys.emplace_back(LocalSet::group_key(group, local.port), static_cast<uint32_t>(set.groups.size()));
    set.groups.push_back({group, local.port, local.since});
  }
  set.group_index = LookupTable(keys);
  if (before == nullptr) return;
  for (const Group& group : before->groups) {
    if (!known.contains({group.address, group.port})) set.left.push_back({group.address, group.port, generation});
  }
}

}  // namespace

NeighbourSet::NeighbourSet(std::vector<NeighbourTarget> list) : targets(std::move(list)), id_of(keys_of(targets)) {}

std::shared_ptr<const LocalSet> LocalSets::set_of(std::vector<LocalAddress> wanted, uint64_t generation) {
  if (current_ && std::equal(wanted.begin(), wanted.end(), wanted_->begin(), wanted_->end(), same)) return current_;
  using Key = std::tuple<IpAddress, LocalKind, uint16_t>;
  std::map<Key, uint64_t> known;
  if (current_) {
    for (const LocalAddress& a : current_->addresses) known.emplace(Key(a.address, a.kind, a.port), a.since);
  }
  wanted_ = std::make_shared<const std::vector<LocalAddress>>(wanted);
  auto next = std::make_shared<LocalSet>();
  for (LocalAddress& address : wanted) {
    address.since = known.try_emplace(Key(address.address, address.kind, address.port), generation).first->second;
  }
  const auto asked =
      std::stable_partition(wanted.begin(), wanted.end(), [](const auto& a) { return a.kind != LocalKind::standby; });
  next->asked.assign(asked, wanted.end());
  wanted.erase(asked, wanted.end());
  std::stable_sort(wanted.begin(), wanted.end(), [](const auto& a, const auto& b) { return a.since < b.since; });
  next->addresses = std::move(wanted);
  derive_groups(*next, current_.get(), generation);
  current_ = std::move(next);
  return current_;
}

}  // namespace tidegate::l4
