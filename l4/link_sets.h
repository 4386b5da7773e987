// SPDX-License-Identifier: Apache-2.0
// LocalSet and NeighbourSet: what the forwarder answers for on its links, and whom it asks there. Both are derived on
// the control thread and immutable; successive tables share them while nothing in them changes. So a change of health
// costs a worker the comparison of two pointers, however many addresses there are.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "l4/ids.h"
#include "l4/lookup_table.h"

namespace tidegate::l4 {

enum class LocalKind : uint32_t { none, vip, own };

struct LocalAddress {
  IpAddress address;
  LocalKind kind = LocalKind::none;
  uint16_t port = 0;   // on whose link it is
  uint64_t since = 0;  // generation of the first tables that held it
};

// A multicast group in which a port's link asks for some of our addresses.
struct Group {
  IpAddress address;
  uint16_t port = 0;
  uint64_t since = 0;  // as of an address; of a group that was left: the first tables without it
};

// Lists are ordered by `since`: what a worker has not spoken of yet stands at their ends.
struct LocalSet {
  std::vector<LocalAddress> addresses;
  std::vector<Group> groups;  // each once
  std::vector<Group> left;    // those that the set before had
  LookupTable group_index;    // group_key -> index into `groups`

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
  LookupTable id_of;  // LookupKey::of_address -> index of the NeighbourId

  explicit NeighbourSet(std::vector<NeighbourTarget> list);
};

// Makes LocalSets, and gives out the one before where nothing changed. Control thread.
class LocalSets {
 public:
  // `wanted` in any order; its `since` is ignored.
  std::shared_ptr<const LocalSet> set_of(std::vector<LocalAddress> wanted, uint64_t generation);

 private:
  std::vector<LocalAddress> wanted_;  // of the last call
  std::shared_ptr<const LocalSet> current_;
};

}  // namespace tidegate::l4
