// SPDX-License-Identifier: Apache-2.0
#include "l4/explain.h"
#include "conf/found_backends.h"
#include "conf/model.h"
#include "conf/model/pool.h"
#include "conf/model/service.h"
#include "conf/model/site.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "conf/acl.h"
#include "conf/vip_holder.h"
#include "l4/drop_reason.h"

namespace tidegate::l4 {
namespace {

using nlohmann::json;

json answer(const char* decision, std::string reason) {
  return {{"plane", "l4"},
          {"service", nullptr},
          {"pool", nullptr},
          {"decision", decision},
          {"backend", nullptr},
          {"eligible", json::array()},
          {"reason", std::move(reason)}};
}

// The VIP address that the client would use. The question gives the address itself, or the VIP's name; then it is the
// address in the client's family.
std::optional<IpAddress> vip_address(const ForwardingTables& tables, const ExplainQuestion& question) {
  if (const std::optional<IpAddress> address = IpAddress::parse(question.vip)) return address;
  for (const Vip& vip : tables.snapshot->model->vips) {
    if (vip.name != question.vip) continue;
    for (const IpAddress& address : vip.addresses) {
      if (address.family == question.client->family) return address;
    }
  }
  return std::nullopt;
}

json eligible(const ForwardingTables& tables, const BackendIds& backends, uint32_t pool_index, uint8_t family) {
  json out = json::array();
  const Snapshot& snapshot = *tables.snapshot;
  const Pool& pool = snapshot.model->pools[pool_index];
  for (uint32_t i = 0; i < pool.backends.size(); ++i) {
    const Backend& backend = pool.backends[i];
    const BackendStatus& status = snapshot.pools[pool_index].backends[i];
    const std::optional<BackendId> id = backends.find({pool.name, backend.name});
    const bool reachable = id && tables.backend(*id).neighbour(family) != kNoNeighbour;
    std::string why = status.why;
    if (!reachable) why = fmt::format("no address to which IPv{} packets can be sent", family);
    if (reachable && why.empty() && id && tables.backend(*id).is_cut_off(family)) {
      why = "does not answer for its MAC address, or its link is down: no new flows";
    }
    if (why.empty() && is_on_standby(snapshot, pool_index, i)) why = kStandbyWhy;
    if (backend.weight == 0 && why.empty()) why = "weight 0: no new flows";
    out.push_back({{"backend", backend.name}, {"weight", backend.weight}, {"state", name(status.state)}, {"why", why}});
  }
  return out;
}

std::string backend_name(const BackendIds& backends, BackendId wanted) {
  std::string found;
  backends.for_each([&](const BackendKey& key, BackendId id) {
    if (id == wanted) found = key.second;
  });
  return found;
}

std::string pick_reason(const ServiceEntry& service, uint64_t hash) {
  return fmt::format("no flow is pinned: a new one gets slot {} of {} by keyed hash of the {}",
                     maglev_slot(hash, service.slot_count), service.slot_count,
                     service.flow_key == FlowKey::client ? "client address" : "5-tuple");
}

// The longest network of the list that contains the client. Empty: the list contains it because of its country.
std::string network_with(const Acl& acl, const IpAddress& client) {
  const Cidr* longest = nullptr;
  const std::vector<Cidr> networks = networks_of(acl);
  for (const Cidr& each : networks) {
    if (each.contains(client) && (longest == nullptr || each.prefix > longest->prefix)) longest = &each;
  }
  return longest == nullptr ? std::string() : longest->to_string();
}

// Adds what the service's lists decide about the client. Returns false if they refuse it.
bool tell_lists(const ForwardingTables& tables, const ServiceEntry& service, const IpAddress& client, json& out) {
  const Model& model = *tables.snapshot->model;
  const Service& config = model.services[service.service];
  if (service.guard == nullptr || service.guard->decisions.empty()) return true;
  const std::vector<uint16_t>& lists = tables.lists->sets()[tables.lists->find(service.family, words_of(client))];
  // The ids only say which list of the model decided.
  std::vector<AclId> ids;
  for (size_t i = 0; i < model.acls.size(); ++i) ids.push_back(AclId(static_cast<uint16_t>(i)));
  const ListDecision decision = decide_by_lists(lists, config.deny, config.allow, ids);
  if (decision.admission == Admission::not_allowed) {
    out["decision"] = "refused";
    out["reason"] = fmt::format("{}: {}", name(DropReason::acl_not_allowed), sentence(DropReason::acl_not_allowed));
    return false;
  }
  if (decision.list == kNoAcl) return true;
  const Acl& acl = model.acls[index_of(decision.list)];
  const std::string network = network_with(acl, client);
  out["acl"] = acl.name;
  const std::string by = network.empty() ? "by the client's country" : "by its network " + network;
  if (decision.admission == Admission::allowed) {
    out["acl_reason"] = fmt::format("list {} allows the client {}", acl.name, by);
    return true;
  }
  out["decision"] = "refused";
  out["reason"] = fmt::format("{}: list {} denies the client {}", name(DropReason::acl_denied), acl.name, by);
  return false;
}

void tell_limits(const Service& service, json& out) {
  const ServiceLimits& limits = service.limits;
  json told = json::object();
  const auto tell = [&](const char* what, uint64_t rate) {
    if (rate != 0) told[what] = rate;
  };
  tell("packets", limits.packets);
  tell("flows", limits.flows);
  tell("source_packets", limits.source_packets);
  tell("source_flows", limits.source_flows);
  if (!told.empty()) out["limits"] = std::move(told);
  if (service.reset_unknown) out["reset_unknown"] = true;
}

}  // namespace

json explain(const ForwardingTables& tables, const FlowHasher& hasher, const BackendIds& backends,
             const FindFlow& find_flow, const ExplainQuestion& question) {
  if (!question.client) return answer("none", "client is not an IP address");
  const std::optional<IpAddress> vip = vip_address(tables, question);
  if (!vip) return answer("none", fmt::format("no VIP {} with an address of the client's family", question.vip));
  if (vip->family != question.client->family) return answer("none", "client and VIP are of different families");
  const auto family = static_cast<uint8_t>(vip->family);
  const LocalKind kind = tables.local_kind(family, words_of(*vip));
  if (kind == LocalKind::standby) {
    const auto left = tables.left.find(*vip);
    const std::string holder = left == tables.left.end() ? holder_name(*tables.snapshot, *vip) : left->second;
    json out = answer(
        "none", fmt::format("the forwarder of node {} holds {}, and this one stands by", holder, vip->to_string()));
    out["holder"] = holder;
    return out;
  }
  if (kind != LocalKind::vip) return answer("none", fmt::format("{} is not a VIP of this forwarder", vip->to_string()));
  const auto protocol = static_cast<uint8_t>(question.protocol == "udp" ? Protocol::udp : Protocol::tcp);
  FlowTuple tuple{family,
                  protocol,
                  htons(question.client_port.value_or(0)),
                  htons(question.port),
                  words_of(*question.client),
                  words_of(*vip)};
  const ServiceEntry* service = tables.find_service(family, tuple.vip, protocol, tuple.service_port_be);
  if (service == nullptr) {
    return answer("none", fmt::format("no service on {} port {}", question.protocol, question.port));
  }

  const Snapshot& snapshot = *tables.snapshot;
  const Service& config = snapshot.model->services[service->service];
  json out = answer("none", "");
  out["service"] = config.name;
  out["pool"] = snapshot.model->pools[config.pool].name;
  out["forwarding"] = name(config.forwarding);
  out["eligible"] = eligible(tables, backends, config.pool, family);
  tell_limits(config, out);
  if (!tell_lists(tables, *service, *question.client, out)) return out;

  const uint64_t hash = hasher.tuple(tuple);
  // Adds the second backend that a packet names if its connection did not begin here.
  const auto name_second = [&](BackendId first) {
    if (service->before == nullptr) return;
    const BackendId second = pick_before(tables, *service, hasher, tuple.client, hash, first);
    if (second != kNoBackend) out["second_chance"] = backend_name(backends, second);
  };
  if (question.client_port && service->tracking) {
    const std::optional<FlowEntry> flow = find_flow(hash);
    if (flow && tables.backend(flow->backend).keeps_flows(family)) {
      out["decision"] = "flow";
      out["backend"] = backend_name(backends, flow->backend);
      out["reason"] = fmt::format("pinned by a flow that is {}{}", name(flow->state),
                                  flow->shared != 0 ? ", as another forwarder of the site told" : "");
      if (flow->unseen != 0) name_second(flow->backend);
      return out;
    }
  }
  if (!question.client_port && service->flow_key != FlowKey::client) {
    out["reason"] = "the flow key is the 5-tuple: give client_port for the backend of one connection";
    return out;
  }
  const BackendId backend = pick_backend(*service, hasher, family, tuple.client, hash);
  if (backend == kNoBackend) {
    out["reason"] = "no backend of the pool may be used";
    return out;
  }
  const bool fail_open = snapshot.pools[config.pool].fail_open;
  out["decision"] = fail_open ? "fail_open" : "maglev";
  out["backend"] = backend_name(backends, backend);
  out["reason"] =
      pick_reason(*service, service->flow_key == FlowKey::client ? hasher.client(family, tuple.client) : hash);
  name_second(backend);
  if (fail_open) out["reason"] = "no backend is up and the pool fails open; " + out["reason"].get<std::string>();
  return out;
}

}  // namespace tidegate::l4
