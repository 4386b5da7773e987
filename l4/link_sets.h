// SPDX-License-Identifier: Apache-2.0
// LocalSet: the addresses that the forwarder answers for on its links. NeighbourSet: the neighbours that it asks for
// there. Both are derived on the control thread and are immutable. Successive tables share them while nothing in them
// changes. So a change of health costs a worker only the comparison of two pointers, however many addresses there are.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "l4/ids.h"
#include "l4/lookup_table.h"

namespace tidegate::l4 {

// standby: a VIP that another forwarder on the link holds now. Packets to it are handled as packets to a VIP, because
// neighbours may not know the holder yet, or have a route to this forwarder. But it is not announced, and ARP and
// neighbour discovery for it are not answered.
enum class LocalKind : uint32_t { none, vip, own, standby };
inline bool is_vip(LocalKind kind) { return kind == LocalKind::vip || kind == LocalKind::standby; }

struct LocalAddress {
  IpAddress address;
  LocalKind kind = LocalKind::none;
  uint16_t port = 0;   // the port on whose link it is
  uint64_t since = 0;  // generation of the first tables that contained it
};

// A multicast group that neighbours on the port's link use to ask for some of our addresses.
struct Group {
  IpAddress address;
  uint16_t port = 0;
  uint64_t since = 0;  // as for an address; for a group that we left: generation of the first tables without it
};

// The lists are ordered by `since`: the entries that a worker has not announced yet are at the end.
struct LocalSet {
  std::vector<LocalAddress> addresses;
  std::vector<LocalAddress> asked;  // of kind standby: VipAsker asks whether another station answers for them
  std::vector<Group> groups;        // each group once
  std::vector<Group> left;          // groups that only the previous set has
  LookupTable group_index;          // group_key -> index into `groups`

  static LookupKey group_key(const IpAddress& group, uint16_t port) { return {words_of(group), port}; }
};

struct NeighbourTarget {
  NeighbourId id = kNoNeighbour;
  IpAddress address;
  uint16_t port = 0;  // index of the forwarder's port on whose link it is
  bool operator==(const NeighbourTarget&) const = default;
};

struct NeighbourSet {
  std::vector<NeighbourTarget> targets;
  LookupTable id_of;  // LookupKey::of_address -> the number of the NeighbourId

  explicit NeighbourSet(std::vector<NeighbourTarget> list);
};

// Makes LocalSets, and returns the previous one if nothing changed. A copy costs one pointer. Control thread.
class LocalSets {
 public:
  // `wanted` may be in any order. Its `since` is ignored. Its addresses of kind standby are those to ask for.
  std::shared_ptr<const LocalSet> set_of(std::vector<LocalAddress> wanted, uint64_t generation);

 private:
  std::shared_ptr<const std::vector<LocalAddress>> wanted_;  // argument of the last call; null: there was none
  std::shared_ptr<const LocalSet> current_;
};

}  // namespace tidegate::l4
