// SPDX-License-Identifier: Apache-2.0
// Build: the results of one run of ForwardingBuilder, to which each step adds.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "l4/plan/forwarding.h"

namespace tidegate::l4 {

constexpr uint8_t kFamilies[] = {4, 6};

struct ForwardingBuilder::Build {
  std::shared_ptr<ForwardingTables> tables;
  const Snapshot& snapshot;
  const Model& model;
  const Node& node;
  const Outages& outages;
  // backends of each pool that were already added, in the pool's order
  std::map<uint32_t, std::vector<BackendId>> ids_of_pool;
  std::map<uint32_t, TunnelConfig> tunnels;  // tunnels of the pools that services of this site use
  std::vector<bool> neighbour_is_added;      // by NeighbourId
  std::vector<NeighbourTarget> neighbours;
  std::vector<LocalAddress> local_addresses;
  std::vector<std::pair<LookupKey, uint32_t>> service_keys, range_keys, local_keys;
  std::map<std::array<uint64_t, 3>, size_t> range_set_of;  // by address and protocol
  std::string digest_text;
  bool with_tables = true;  // false: neither Maglev tables nor lists are built
  std::shared_ptr<const CountryNetworks> countries = {};
  std::vector<AclId> acl_ids = {};  // ids of the model's lists
  std::string faulty = {};          // JSON pointer to the part for which there was no room
  Staged staged = {};
};

}  // namespace tidegate::l4
