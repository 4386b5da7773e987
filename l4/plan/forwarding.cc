// SPDX-License-Identifier: Apache-2.0
#include "l4/plan/forwarding.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <string_view>
#include <unordered_set>

#include "conf/found_backends.h"
#include "conf/limits.h"
#include "conf/model/pool.h"
#include "conf/model/site.h"
#include "conf/vip_holder.h"
#include "core/assert.h"
#include "core/clock.h"
#include "core/crypto.h"
#include "l4/plan/forwarding_build.h"
#include "l4/plan/next_hop.h"
#include "l4/plan/share_settings.h"

namespace tidegate::l4 {
namespace {

bool has_family(const std::vector<IpAddress>& addresses, uint8_t family) {
  return std::any_of(addresses.begin(), addresses.end(),
                     [&](const IpAddress& a) { return static_cast<uint8_t>(a.family) == family; });
}

uint32_t timeout_ms(uint64_t configured_ms) {
  return static_cast<uint32_t>(std::min<uint64_t>(configured_ms, kMaxFlowTimeoutMs));
}

FlowTimeouts timeouts_of(const Service& service) {
  if (service.protocol == Protocol::udp) {
    const uint32_t idle_ms = timeout_ms(service.udp_idle_timeout_ms);
    return {idle_ms, idle_ms, idle_ms};
  }
  return {timeout_ms(service.tcp_syn_timeout_ms), timeout_ms(service.tcp_idle_timeout_ms),
          timeout_ms(service.tcp_closing_timeout_ms)};
}

TunnelConfig tunnel_of_service(const Service& service) {
  return {service.forwarding, service.vni, service.tunnel_port};
}

// The lists and limits of a service, by name, for the digest. Empty if it has none.
std::string guard_text(const Model& model, const Service& service) {
  std::string text;
  for (const uint32_t list : service.deny) text += fmt::format("deny {}\n", model.acls[list].name);
  for (const uint32_t list : service.allow) text += fmt::format("allow {}\n", model.acls[list].name);
  const ServiceLimits& l = service.limits;
  if ((l.packets | l.flows | l.source_packets | l.source_flows) != 0) {
    text += fmt::format("limits {} {} {} {} {} {} {} {} {} {}\n", l.packets, l.packets_burst, l.flows, l.flows_burst,
                        l.source_packets, l.source_packets_burst, l.source_flows, l.source_flows_burst,
                        l.source_prefix_v4, l.source_prefix_v6);
  }
  if (service.reset_unknown) text += "reset_unknown\n";
  return text;
}

}  // namespace

std::vector<OtherForwarder> other_forwarders(const Model& model, const Node& own) {
  std::vector<OtherForwarder> others;
  for (uint32_t index = 0; index < model.nodes.size(); ++index) {
    const Node& node = model.nodes[index];
    if (!node.l4.enabled || node.name == own.name) continue;
    for (const L4Port& port : node.l4.ports) {
      for (const auto& [address, prefix] : port.addresses) {
        const std::optional<uint16_t> by = port_on_link(own.l4, address, Outages{});
        if (by && others.size() < kMaxOtherForwarders) others.push_back({index, address, *by});
      }
    }
  }
  return others;
}

const ServiceEntry* ForwardingTables::find_in_ranges(const LookupKey& key) const {
  constexpr uint64_t kPortBits = 0xffff;
  const uint32_t set = range_index.find({key.address, key.rest & ~kPortBits});
  if (set == LookupTable::kAbsent) return nullptr;
  const uint16_t port = ntohs(static_cast<uint16_t>(key.rest & kPortBits));
  const auto after = std::upper_bound(ranges[set].begin(), ranges[set].end(), port,
                                      [](uint16_t wanted, const PortRange& range) { return wanted < range.first; });
  if (after == ranges[set].begin() || std::prev(after)->last < port) return nullptr;
  return &services[std::prev(after)->service];
}

Result<std::shared_ptr<const ForwardingTables>> ForwardingBuilder::build(
    std::shared_ptr<const Snapshot> snapshot, const Node& node, uint64_t now_ns, const Outages& outages,
    std::shared_ptr<const CountryNetworks> countries) {
  const Model& model = *snapshot->model;
  Build build{
      std::make_shared<ForwardingTables>(), *snapshot, model, node, outages, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}};
  build.neighbour_is_added.resize(kMaxNeighbours);
  build.tables->generation = ++generation_;
  build.tables->snapshot = snapshot;
  build.tables->flow_events = node.l4.flow_events;
  build.tables->left = outages.left;
  build.countries = std::move(countries);
  if (Result<void> derived = derive(build, now_ns); !derived) {
    abandon();
    return derived.error();
  }
  staged_ = std::move(build.staged);
  return std::shared_ptr<const ForwardingTables>(std::move(build.tables));
}

Result<void> ForwardingBuilder::derive(Build& build, uint64_t now_ns) {
  const Model& model = build.model;
  Staged& staged = build.staged;
  staged.generation = build.tables->generation;
  staged.longest_timeout_ms = longest_timeout_ms_;
  for (const Service& service : model.services) {
    staged.longest_timeout_ms =
        std::max({staged.longest_timeout_ms, service.tcp_syn_timeout_ms, service.tcp_idle_timeout_ms,
                  service.tcp_closing_timeout_ms, service.udp_idle_timeout_ms});
  }
  backend_ids_.begin_round(now_ns, staged.longest_timeout_ms * kNsPerMs);
  neighbour_ids_.begin_round(now_ns, 0);
  service_ids_.begin_round(now_ns, 0);
  acl_ids_.begin_round(now_ns, 0);

  add_local_addresses(build);
  for (size_t port = 0; port < build.node.l4.ports.size(); ++port) {
    for (const IpAddress& gateway : build.node.l4.ports[port].gateways) {
      if (Result<NeighbourId> added = add_neighbour(build, gateway, static_cast<uint16_t>(port)); !added)
        return added.error();
    }
  }
  for (const Service& service : model.services) build.tunnels.try_emplace(service.pool, tunnel_of_service(service));
  if (Result<void> added = add_lists(build); !added) return added;
  if (Result<void> added = add_services(build); !added) return added;
  if (Result<void> added = add_former_pools(build); !added) return added;
  if (build.outages.alone) add_other_forwarders(build);

  staged.neighbours = neighbours_ && neighbours_->targets == build.neighbours
                          ? neighbours_
                          : std::make_shared<const NeighbourSet>(std::move(build.neighbours));
  build.tables->neighbours = staged.neighbours;
  staged.local_sets = local_sets_;
  build.tables->local = staged.local_sets.set_of(std::move(build.local_addresses), staged.generation);
  build.tables->service_index = LookupTable(build.service_keys);
  build.tables->range_index = LookupTable(build.range_keys);
  build.tables->local_index = LookupTable(build.local_keys);
  build.tables->digest = sha256_hex(build.digest_text);
  return {};
}

Result<void> ForwardingBuilder::add_lists(Build& build) {
  for (const Acl& acl : build.model.acls) {
    const std::optional<AclId> id = acl_ids_.intern(acl.name);
    if (!id) return fail(fmt::format("more than {} lists of clients in two versions", kMaxAclIds));
    build.acl_ids.push_back(*id);
  }
  if (!build.with_tables) return {};
  const Result<std::shared_ptr<const ListCache::Compiled>> compiled =
      list_cache_.compile(build.snapshot.model, build.countries);
  if (!compiled) return compiled.error();
  if (*compiled == nullptr) return {};
  build.tables->lists = (*compiled)->lists;
  build.digest_text += "lists " + (*compiled)->digest + '\n';
  return {};
}

void ForwardingBuilder::add_guard(Build& build, const Service& service, ServiceEntry& entry) {
  std::vector<std::unique_ptr<const Guard>>& guards = build.tables->guards;
  const size_t at = index_of(entry.id);
  if (guards.size() <= at || guards[at] == nullptr) {
    std::unique_ptr<const Guard> guard = make_guard(service, entry.id, build.tables->lists.get(), build.acl_ids);
    if (guard == nullptr) return;
    if (guards.size() <= at) guards.resize(at + 1);
    guards[at] = std::move(guard);
  }
  entry.guard = guards[at].get();
}

Result<void> ForwardingBuilder::add_services(Build& build) {
  for (uint32_t i = 0; i < build.model.services.size(); ++i) {
    const Service& service = build.model.services[i];
    const Vip& vip = build.model.vips[service.vip];
    // another site's VIP; that site's own forwarders serve it
    if (vip.site != kNone && vip.site != build.node.site) continue;
    if (Result<void> added = add_backends(build, service.pool); !added) {
      build.faulty = fmt::format("/services/{}/pool", i);
      return added;
    }
    if (Result<void> added = add_service(build, i); !added) {
      build.faulty = fmt::format("/services/{}", i);
      return added;
    }
  }
  return {};
}

std::vector<Fault> ForwardingBuilder::judge(const std::shared_ptr<const Snapshot>& snapshot, const Node& node) {
  const Outages none;
  Build build{std::make_shared<ForwardingTables>(),
              *snapshot,
              *snapshot->model,
              node,
              none,
              {},
              {},
              {},
              {},
              {},
              {},
              {},
              {},
              {},
              {}};
  build.neighbour_is_added.resize(kMaxNeighbours);
  build.with_tables = false;
  build.faulty = "/nodes";  // the gateways of nodes, unless derive() names a pool
  const Result<void> derived = derive(build, 0);
  abandon();
  if (derived) return {};
  return {{"too_many_backends",
           build.faulty,
           {},
           0,
           0,
           fmt::format("node {}: {}", node.name, derived.error().message),
           {},
           {}}};
}

namespace {

// True if every node has room, even for all backends and addresses of the Model.
bool all_fit(const Model& model) {
  size_t backends = 0, addresses = 0, gateways = 0;
  for (const Pool& pool : model.pools) {
    backends += pool.backends.size();
    for (const Backend& backend : pool.backends) addresses += backend.addresses.size();
  }
  for (const Node& node : model.nodes) {
    for (const L4Port& port : node.l4.ports) gateways += port.gateways.size();
  }
  const size_t found = pools_looked_up(model).empty() ? 0 : kFoundServers;
  return backends + found <= kMaxBackends && addresses + gateways + found <= kMaxNeighbours &&
         model.services.size() <= kMaxServices;
}

}  // namespace

std::vector<Fault> judge(const std::shared_ptr<const Model>& model) {
  std::vector<Fault> faults;
  judge_sharing(*model, faults);
  const auto forwards = [](const Node& node) { return node.l4.enabled; };
  if (std::any_of(model->nodes.begin(), model->nodes.end(), forwards)) judge_lists(*model, faults);
  if (all_fit(*model)) return faults;
  std::shared_ptr<const Snapshot> snapshot;
  for (const Node& node : model->nodes) {
    if (!node.l4.enabled) continue;
    if (!snapshot) snapshot = make_snapshot(0, "", model, std::make_shared<const LiveState>());
    for (Fault& fault : ForwardingBuilder(HashKey{}).judge(snapshot, node)) add_fault(faults, std::move(fault));
  }
  return faults;
}

void ForwardingBuilder::adopt(const ForwardingTables& tables, uint64_t now_ns) {
  TIDEGATE_ASSERT(tables.generation == staged_.generation, "only the tables that were built last are adopted");
  backend_ids_.adopt_round(now_ns);
  neighbour_ids_.adopt_round(now_ns);
  service_ids_.adopt_round(now_ns);
  acl_ids_.adopt_round(now_ns);
  neighbours_ = staged_.neighbours;
  local_sets_ = std::move(staged_.local_sets);
  longest_timeout_ms_ = staged_.longest_timeout_ms;
  lineages_ = std::move(staged_.lineages);
  for (const auto& [pool, tunnel] : staged_.served_pools) served_pools_.insert_or_assign(pool, tunnel);
  if (staged_.pools_are_gone) {
    std::unordered_set<std::string_view> known;
    for (const Pool& pool : tables.snapshot->model->pools) known.insert(pool.name);
    std::erase_if(served_pools_, [&](const auto& served) { return !known.contains(served.first); });
  }
  staged_ = {};
  std::erase_if(tables_, [](const auto& entry) { return entry.second.use_count() == 1; });
}

void ForwardingBuilder::abandon() {
  backend_ids_.abandon_round();
  neighbour_ids_.abandon_round();
  service_ids_.abandon_round();
  acl_ids_.abandon_round();
  staged_ = {};
}

// The forwarder asks the link for addresses that it has left to another forwarder. While control hears no leader, it
// also asks for addresses that it holds and another forwarder could hold: a forwarder that answers knows a newer
// decision (l4/left_vips.h).
void ForwardingBuilder::add_local_addresses(Build& build) {
  const auto add = [&](const IpAddress& address, LocalKind kind, uint16_t port) {
    if (kind != LocalKind::standby) build.local_addresses.push_back({address, kind, port, 0});
    build.local_keys.emplace_back(LookupKey::of_address(static_cast<uint8_t>(address.family), words_of(address)),
                                  static_cast<uint32_t>(kind));
  };
  const uint32_t own_index = build.model.node_index(build.node.name);
  const Forwarders forwarders(build.model);
  for (uint32_t index = 0; index < build.model.vips.size(); ++index) {
    const Vip& vip = build.model.vips[index];
    if (vip.site != kNone && vip.site != build.node.site) continue;
    for (const IpAddress& address : vip.addresses) {
      const uint32_t holder = holder_of(forwarders, build.snapshot.nodes, index, address);
      const bool is_left = build.outages.left.contains(address);
      const bool held = !is_left && (holder == kNone || holder == own_index);
      const uint16_t port = port_on_link(build.node.l4, address, build.outages).value_or(0);
      add(address, held ? LocalKind::vip : LocalKind::standby, port);
      if (is_left || (build.outages.alone && holder == own_index)) {
        build.local_addresses.push_back({address, LocalKind::standby, port, 0});
      }
      build.digest_text += fmt::format("vip {} {}\n", vip.name, address.to_string());
    }
  }
  for (size_t port = 0; port < build.node.l4.ports.size(); ++port) {
    for (const auto& [address, prefix] : build.node.l4.ports[port].addresses) {
      add(address, LocalKind::own, static_cast<uint16_t>(port));
    }
  }
}

// If there is no room for the addresses of another forwarder, its claims count as those of an unknown station.
void ForwardingBuilder::add_other_forwarders(Build& build) {
  for (const OtherForwarder& other : other_forwarders(build.model, build.node)) {
    (void)add_neighbour(build, other.address, other.port);
  }
}

void ForwardingBuilder::add_range(Build& build, const LookupKey& key, const PortRange& range) {
  std::vector<std::vector<PortRange>>& ranges = build.tables->ranges;
  const auto [known, is_new] = build.range_set_of.try_emplace({key.address.a, key.address.b, key.rest}, ranges.size());
  const size_t set = known->second;
  if (is_new) {
    build.range_keys.emplace_back(key, static_cast<uint32_t>(set));
    ranges.emplace_back();
  }
  const auto at = std::upper_bound(ranges[set].begin(), ranges[set].end(), range,
                                   [](const PortRange& a, const PortRange& b) { return a.first < b.first; });
  ranges[set].insert(at, range);
}

// Only TCP through gue and ipip can use it: the packet has room for a second backend, and the first backend can find
// out whether it knows the connection.
std::shared_ptr<const PoolTable> ForwardingBuilder::table_before(Build& build, const Service& service,
                                                                 const ServiceEntry& entry) const {
  const bool has_place = service.forwarding == Forwarding::gue || service.forwarding == Forwarding::ipip;
  if (service.protocol != Protocol::tcp || !has_place) return nullptr;
  const std::pair<std::string, uint8_t> key = {build.model.pools[service.pool].name, entry.family};
  const auto [staged, is_new] = build.staged.lineages.try_emplace(key);
  if (is_new) {
    const auto known = lineages_.find(key);
    const Lineage past = known == lineages_.end() ? Lineage{} : known->second;
    staged->second = {entry.table, past.table == entry.table ? past.before : past.table};
  }
  return staged->second.before;
}

Result<void> ForwardingBuilder::add_service(Build& build, uint32_t service_index) {
  const Service& service = build.model.services[service_index];
  const Vip& vip = build.model.vips[service.vip];
  const std::optional<ServiceId> id = service_ids_.intern(service.name);
  if (!id) return fail(fmt::format("more than {} services of one node", kMaxServices));
  if (!build.with_tables) return {};
  for (const uint8_t family : kFamilies) {
    if (!has_family(vip.addresses, family)) continue;
    ServiceEntry entry;
    entry.table = pool_table(build, service.pool, family);
    entry.slots = entry.table->slots.data();
    entry.slot_count = static_cast<uint32_t>(entry.table->slots.size());
    entry.flow_key = service.flow_key;
    entry.tracking = service.tracking;
    entry.timeouts = timeouts_of(service);
    entry.family = family;
    entry.service = service_index;
    entry.before = table_before(build, service, entry);
    entry.id = *id;
    entry.reset_unknown = service.reset_unknown;
    add_guard(build, service, entry);
    const auto index = static_cast<uint32_t>(build.tables->services.size());
    for (const IpAddress& address : vip.addresses) {
      if (static_cast<uint8_t>(address.family) != family) continue;
      if (service.last_port != 0) {
        add_range(build, LookupKey::of_service(family, words_of(address), static_cast<uint8_t>(service.protocol), 0),
                  {service.port, service.last_port, index});
        continue;
      }
      const uint16_t port_be = htons(service.port);
      build.service_keys.emplace_back(
          LookupKey::of_service(family, words_of(address), static_cast<uint8_t>(service.protocol), port_be), index);
    }
    build.digest_text +=
        guard_text(build.model, service) +
        fmt::format("service {} {} {} {} {} {} {} {} {} {}\n", name(service.forwarding), service.last_port,
                    service.name, vip.name, static_cast<int>(service.protocol), service.port,
                    static_cast<int>(service.flow_key), service.tracking, family, entry.table->digest);
    build.tables->services.push_back(std::move(entry));
  }
  return {};
}

}  // namespace tidegate::l4
