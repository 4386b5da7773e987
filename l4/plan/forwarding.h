// SPDX-License-Identifier: Apache-2.0
// ForwardingTables: everything that a worker needs to decide. They are derived from one Snapshot, are immutable, and
// are published through one pointer. ForwardingBuilder derives them on the control thread and rebuilds only what
// changed. A build has no effect until its tables are adopted. Nothing here knows devices or DPDK.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "conf/fault.h"
#include "conf/maglev.h"
#include "conf/model.h"
#include "conf/model/node.h"
#include "conf/model/service.h"
#include "conf/snapshot.h"
#include "core/hash.h"
#include "core/result.h"
#include "l4/action.h"
#include "l4/conn_table.h"
#include "l4/flow_key.h"
#include "l4/ids.h"
#include "l4/kept_ids.h"
#include "l4/link_sets.h"
#include "l4/lookup_table.h"
#include "l4/neighbour_board.h"
#include "l4/plan/changing_tables.h"
#include "l4/plan/guard.h"
#include "l4/plan/list_cache.h"

namespace tidegate::l4 {

// One pool for one address family: the Maglev table over the backends that may get new flows.
struct PoolTable {
  std::string content;          // the members and weights it was built from; equal content needs no rebuild
  std::string digest;           // covers members, weights and slots by name, so that two nodes can be compared
  std::vector<uint16_t> slots;  // BackendIds; all kNoBackend if no backend may be used
};

// A service on the addresses of one family of its VIP. All addresses of that family share this entry.
struct ServiceEntry {
  std::shared_ptr<const PoolTable> table;
  const uint16_t* slots = nullptr;  // slots of `table`
  uint32_t slot_count = 0;
  // For TCP through gue or ipip: the pool's table before `table`. It is for packets of connections whose beginning was
  // not seen. Null if there was none since the start.
  std::shared_ptr<const PoolTable> before;
  FlowKey flow_key = FlowKey::five_tuple;
  bool tracking = true;
  FlowTimeouts timeouts;
  bool reset_unknown = false;
  uint8_t family = 4;
  ServiceId id = kNoService;
  uint32_t service = kNone;      // index in the Snapshot's model
  const Guard* guard = nullptr;  // null: the service has no lists and limits. Both families have the same one.
};

// The size is eight bytes, so an index needs only a shift. The first four fields have one bit for each family of
// packets: bit 4 for IPv4, bit 6 for IPv6. The neighbour of a family is the next hop of its packets. Through a tunnel
// it may have an address of the other family.
struct alignas(8) BackendEntry {
  // Has an address, and is up, draining, or used because its pool fails open. 0 if no backend has this id.
  uint8_t keeping = 0;
  uint8_t cut_off = 0;      // cannot be reached from here
  uint8_t tunnelled = 0;    // packets of this family go through a tunnel
  uint8_t long_header = 0;  // and its Action::is_long()
  bool has_tunnel(uint8_t family) const { return (tunnelled >> family & 1) != 0; }
  bool has_long_header(uint8_t family) const { return (long_header >> family & 1) != 0; }
  bool keeps_flows(uint8_t family) const { return (keeping >> family & 1) != 0; }
  bool is_cut_off(uint8_t family) const { return (cut_off >> family & 1) != 0; }
  NeighbourId neighbour_v4 = kNoNeighbour, neighbour_v6 = kNoNeighbour;
  NeighbourId neighbour(uint8_t family) const { return family == 4 ? neighbour_v4 : neighbour_v6; }
};

// A service on several ports of an address.
struct PortRange {
  uint16_t first = 0, last = 0;
  uint32_t service = 0;  // index into the tables' services
};

// Ports, neighbours and addresses that this forwarder cannot use now. Probes may take another path and may still
// succeed.
struct Outages {
  std::vector<bool> ports;                // true: this port is down; may be shorter than the list of ports
  const NeighbourBoard* board = nullptr;  // silent neighbours, by the ids of the tables in force
  // True if this host's control hears no leader (l4/left_vips.h). Then the forwarder asks for the MAC addresses of
  // other forwarders.
  bool alone = false;
  // VIP addresses that another forwarder holds, although this forwarder holds them by the state. The value is the other
  // forwarder's node.
  std::map<IpAddress, std::string> left = {};
};

// An address of another forwarder on one of our links.
struct OtherForwarder {
  uint32_t node = kNone;
  IpAddress address;
  uint16_t port = 0;  // index of our port on whose link it is
};
// The first kMaxOtherForwarders of them, in the order of nodes.
std::vector<OtherForwarder> other_forwarders(const Model& model, const Node& own);

struct ForwardingTables {
  uint64_t generation = 0;  // grows with each build; unlike a memory address it is never used again
  std::shared_ptr<const Snapshot> snapshot;
  std::string digest;
  std::vector<ServiceEntry> services;
  std::vector<BackendEntry> backends;  // by BackendId
  std::vector<Action> tunnels;         // two for each BackendId; see tunnel()
  std::shared_ptr<const NeighbourSet> neighbours;
  std::shared_ptr<const LocalSet> local;
  LookupTable service_index;  // LookupKey::of_service -> index into services
  // The ranges of an address and protocol, ordered by port; they do not overlap.
  std::vector<std::vector<PortRange>> ranges;
  LookupTable range_index;  // LookupKey::of_service with port 0 -> index into ranges
  LookupTable local_index;  // LookupKey::of_address -> LocalKind
  // By ServiceId. Empty if no service has a Guard; shorter if the last services have none.
  std::vector<std::unique_ptr<const Guard>> guards;
  std::shared_ptr<const SourceLists> lists;  // null: the model has no lists
  std::map<IpAddress, std::string> left;     // Outages::left
  uint64_t flow_events = 0;                  // one of this many new flows is reported; 0: none

  const Guard* guard(ServiceId id) const { return index_of(id) < guards.size() ? guards[index_of(id)].get() : nullptr; }

  const ServiceEntry* find_service(uint8_t family, const AddressWords& vip, uint8_t protocol, uint16_t port_be) const {
    return find_service(LookupKey::of_service(family, vip, protocol, port_be));
  }
  const ServiceEntry* find_service(const LookupKey& key) const {
    const uint32_t index = service_index.find(key);
    if (index != LookupTable::kAbsent) return &services[index];
    return ranges.empty() ? nullptr : find_in_ranges(key);
  }
  LocalKind local_kind(uint8_t family, const AddressWords& address) const {
    const uint32_t kind = local_index.find(LookupKey::of_address(family, address));
    return kind == LookupTable::kAbsent ? LocalKind::none : static_cast<LocalKind>(kind);
  }
  const BackendEntry& backend(BackendId id) const {
    return index_of(id) < backends.size() ? backends[index_of(id)] : kAbsentBackend;
  }
  // Only for a backend that has a tunnel for packets of this family.
  const Action& tunnel(BackendId id, uint8_t family) const { return tunnels[index_of(id) * 2 + (family == 6 ? 1 : 0)]; }

 private:
  static constexpr BackendEntry kAbsentBackend{};
  const ServiceEntry* find_in_ranges(const LookupKey& key) const;
};

// Returns the backend of a new flow, or kNoBackend. `flow_hash` is the tuple's hash; it is used unless the service keys
// flows by client.
inline BackendId pick_backend(const ServiceEntry& service, const FlowHasher& hasher, uint8_t family,
                              const AddressWords& client, uint64_t flow_hash) {
  const uint64_t hash = service.flow_key == FlowKey::client ? hasher.client(family, client) : flow_hash;
  return BackendId{service.slots[maglev_slot(hash, service.slot_count)]};
}

// The slot of a table for a flow, computed as in pick_backend().
inline uint32_t slot_of(const ServiceEntry& service, const PoolTable& table, const FlowHasher& hasher,
                        const AddressWords& client, uint64_t flow_hash) {
  const uint64_t hash = service.flow_key == FlowKey::client ? hasher.client(service.family, client) : flow_hash;
  return maglev_slot(hash, static_cast<uint32_t>(table.slots.size()));
}

// The backend that the previous table would have picked, if it differs from `backend`, still keeps flows, and packets
// to `backend` can name it; otherwise kNoBackend. Only for a service with a previous table and a `backend` with a
// tunnel.
inline BackendId pick_before(const ForwardingTables& tables, const ServiceEntry& service, const FlowHasher& hasher,
                             const AddressWords& client, uint64_t flow_hash, BackendId backend) {
  const BackendId before{service.before->slots[slot_of(service, *service.before, hasher, client, flow_hash)]};
  const BackendEntry& entry = tables.backend(before);
  if (before == backend || !entry.keeps_flows(service.family) || !entry.has_tunnel(service.family)) return kNoBackend;
  return can_name(tables.tunnel(backend, service.family), tables.tunnel(before, service.family)) ? before : kNoBackend;
}

class ForwardingBuilder {
 public:
  // `table_key` orders the Maglev permutations. It is equal on all hosts of a site.
  explicit ForwardingBuilder(const HashKey& table_key)
      : table_key_(table_key),
        backend_ids_(kMaxBackends),
        neighbour_ids_(kMaxNeighbours),
        service_ids_(kMaxServices),
        acl_ids_(kMaxAclIds) {}

  // Returns an Error if the node's services need more backends or addresses than there are ids. Has no effect on the
  // tables in force: the next build, or abandon(), takes back the ids that this build gave out. `countries`: the
  // networks of the countries in the model's lists; null if there are none.
  Result<std::shared_ptr<const ForwardingTables>> build(std::shared_ptr<const Snapshot> snapshot, const Node& node,
                                                        uint64_t now_ns, const Outages& outages = {},
                                                        std::shared_ptr<const CountryNetworks> countries = nullptr);
  // Returns a fault for each part of a Model for which the node's tables have no room. The faults have only the
  // pointer. judge() derives the same as build(), except for the Maglev tables, and has no effect.
  std::vector<Fault> judge(const std::shared_ptr<const Snapshot>& snapshot, const Node& node);
  // Call it when the tables that were built last are in force, since `now_ns`.
  void adopt(const ForwardingTables& tables, uint64_t now_ns);
  // Call it if the tables that were built last will not come into force.
  void abandon();

  const BackendIds& backend_ids() const { return backend_ids_; }
  const ServiceIds& service_ids() const { return service_ids_; }
  const AclIds& acl_ids() const { return acl_ids_; }
  // Call before the first build: an earlier process gave out these ids, and flows may still have them.
  void restore(const KeptIds& ids, uint64_t now_ns);
  // The ids, with those that the last build gave out. ids_changed() says whether that build gave out any, or served a
  // pool in another way.
  KeptIds kept_ids() const;
  bool ids_changed() const;
  uint64_t maglev_tables_built() const { return maglev_tables_built_; }
  // how many of these were derived from the previous table
  uint64_t maglev_tables_derived() const { return changing_.derived(); }

 private:
  struct Build;
  // A pool's table for one family, and the table before it.
  struct Lineage {
    std::shared_ptr<const PoolTable> table, before;
  };
  // The changes that take effect at the adoption.
  struct Staged {
    uint64_t generation = 0;  // generation of the tables; 0: nothing is staged
    LocalSets local_sets;
    std::shared_ptr<const NeighbourSet> neighbours;
    std::map<std::string, TunnelConfig> served_pools;  // pools that were not served in this way before
    bool pools_are_gone = false;                       // a pool that was served is not in the configuration any more
    uint64_t longest_timeout_ms = 0;
    std::map<std::pair<std::string, uint8_t>, Lineage> lineages;
  };
  Result<void> derive(Build& build, uint64_t now_ns);
  Result<void> add_services(Build& build);
  std::shared_ptr<const PoolTable> pool_table(const Build& build, uint32_t pool, uint8_t family);
  Result<void> add_backends(Build& build, uint32_t pool);
  Result<NeighbourId> add_neighbour(Build& build, const IpAddress& address, uint16_t port);
  TunnelConfig tunnel_of(const Build& build, uint32_t pool) const;
  bool is_cut_off(const Build& build, const IpAddress& next_hop, uint16_t port) const;
  void keep_flows(Build& build, uint32_t pool);
  Result<void> add_former_pools(Build& build);
  void add_local_addresses(Build& build);
  void add_other_forwarders(Build& build);
  Result<void> add_lists(Build& build);
  Result<void> add_service(Build& build, uint32_t service);
  static void add_guard(Build& build, const Service& service, ServiceEntry& entry);
  std::shared_ptr<const PoolTable> table_before(Build& build, const Service& service, const ServiceEntry& entry) const;
  static void add_range(Build& build, const LookupKey& key, const PortRange& range);

  HashKey table_key_;
  BackendIds backend_ids_;
  StableIds<NeighbourId, IpAddress> neighbour_ids_;
  ServiceIds service_ids_;
  AclIds acl_ids_;
  ListCache list_cache_;
  LocalSets local_sets_;
  std::shared_ptr<const NeighbourSet> neighbours_;  // the set of the tables in force
  // The pools of all earlier tables, and how their packets were sent: flows may still be pinned to their backends.
  std::map<std::string, TunnelConfig> served_pools_;
  uint64_t longest_timeout_ms_ = 0;  // longest time-out of any service so far: how long a flow may have an id
  std::map<std::string, std::shared_ptr<const PoolTable>> tables_;  // tables that something holds, by content
  std::map<std::pair<std::string, uint8_t>, Lineage> lineages_;     // for the pools of services through gue and ipip
  Staged staged_;
  ChangingTables changing_;
  uint64_t maglev_tables_built_ = 0;
  uint64_t generation_ = 0;
};

// Faults for everything in a Model for which the forwarders of its nodes have no room. Pure: any thread.
std::vector<Fault> judge(const std::shared_ptr<const Model>& model);

}  // namespace tidegate::l4
