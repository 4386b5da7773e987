// SPDX-License-Identifier: Apache-2.0
#include "conf/found_backends.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "conf/backend_names.h"
#include "conf/limits.h"
#include "conf/model/service.h"
#include "conf/model/site.h"
#include "conf/model/steer.h"

namespace tidegate {
namespace {

bool has_a_name(const Backend& backend) { return !backend.host.empty() || !backend.srv.empty(); }

Backend found_backend(const Backend& named, const NamedEndpoint& found, uint16_t first_priority) {
  Backend server = named;
  server.srv.clear();  // `host` stays: requests without a Host get it
  server.port = found.endpoint.port != 0 ? found.endpoint.port : named.port;
  server.addresses = {found.endpoint.address};
  server.name = found_name(named, {found.endpoint.address, server.port});
  server.weight = std::min<uint32_t>(UINT16_MAX, named.weight * found.weight);
  if (found.left_ns != 0) server.weight = 0;
  if (found.priority > first_priority) server.backup = true;  // RFC 2782: they serve if the others do not
  server.found_by = named.name;
  return server;
}

// The servers that a pool may still get.
struct Bounds {
  size_t room = SIZE_MAX;         // servers
  std::set<IpAddress> forbidden;  // addresses
};

// Returns false if nothing was found.
bool add_found(const Backend& named, const NameBook& names, Bounds& bounds, std::vector<Backend>& servers) {
  const FoundName* const found = find_name(&names, named);
  if (found == nullptr || found->endpoints.empty()) return false;
  uint16_t first_priority = UINT16_MAX;
  for (const NamedEndpoint& each : found->endpoints) {
    if (each.left_ns == 0) first_priority = std::min(first_priority, each.priority);
  }
  const size_t begin = servers.size();
  for (const NamedEndpoint& each : found->endpoints) {
    if (bounds.forbidden.contains(each.endpoint.address)) continue;
    Backend server = found_backend(named, each, first_priority);
    // The endpoints are sorted, so a second record of the same server comes right after the first.
    if (servers.size() > begin && servers.back().name == server.name) continue;
    if (bounds.room == 0) break;
    --bounds.room;
    servers.push_back(std::move(server));
  }
  return servers.size() > begin;
}

bool has_names(const Pool& pool) { return std::any_of(pool.backends.begin(), pool.backends.end(), has_a_name); }

// By pool: whether a service or a steer uses it.
std::vector<bool> forwarded_pools(const Model& model) {
  std::vector<bool> forwarded(model.pools.size(), false);
  for (const Service& service : model.services) forwarded[service.pool] = true;
  for (const Steer& steer : model.steers) {
    for (const SteerTarget& target : steer.targets) {
      if (target.pool() != kNone) forwarded[target.pool()] = true;
    }
  }
  return forwarded;
}

}  // namespace

std::vector<uint32_t> pools_looked_up(const Model& model) {
  std::vector<uint32_t> pools;
  if (std::none_of(model.pools.begin(), model.pools.end(), has_names)) return pools;
  const std::vector<bool> forwarded = forwarded_pools(model);
  for (uint32_t p = 0; p < model.pools.size(); ++p) {
    if ((forwarded[p] || model.pools[p].probe != kNone) && has_names(model.pools[p])) pools.push_back(p);
  }
  return pools;
}

std::string found_name(const Backend& backend, const Endpoint& endpoint) {
  return backend.name + "/" + endpoint.to_string();
}

std::shared_ptr<const Model> with_found_backends(std::shared_ptr<const Model> model, const NameBook& names) {
  if (names.empty()) return model;
  std::shared_ptr<Model> changed;
  const std::vector<bool> forwarded = forwarded_pools(*model);
  Bounds of_forwarder{kFoundServers, {}}, of_proxy;
  for (const Vip& vip : model->vips) of_forwarder.forbidden.insert(vip.addresses.begin(), vip.addresses.end());
  for (const uint32_t p : pools_looked_up(*model)) {
    std::vector<Backend> servers;
    bool any = false;
    for (const Backend& backend : model->pools[p].backends) {
      if (has_a_name(backend) && add_found(backend, names, forwarded[p] ? of_forwarder : of_proxy, servers)) {
        any = true;
      } else {
        servers.push_back(backend);
      }
    }
    if (!any) continue;
    if (!changed) changed = std::make_shared<Model>(*model);
    changed->pools[p].backends = std::move(servers);
  }
  if (!changed) return model;
  return changed;
}

std::vector<Fault> faults_without_control(const Model& model, std::string_view plane) {
  std::vector<Fault> faults;
  const auto refuse = [&](std::string pointer, uint32_t pool) {
    if (!has_names(model.pools[pool])) return;
    Fault fault;
    fault.code = "needs_control";
    fault.pointer = std::move(pointer);
    fault.detail = fmt::format("pool '{}' has backends with names, which control looks up", model.pools[pool].name);
    fault.expected = "a pool whose backends have addresses, where a daemon runs from a file alone";
    faults.push_back(std::move(fault));
  };
  for (size_t s = 0; plane == "l4" && s < model.services.size(); ++s) {
    refuse(fmt::format("/services/{}/pool", s), model.services[s].pool);
  }
  for (size_t s = 0; plane == "dns" && s < model.steers.size(); ++s) {
    for (size_t t = 0; t < model.steers[s].targets.size(); ++t) {
      const uint32_t pool = model.steers[s].targets[t].pool();
      if (pool != kNone) refuse(fmt::format("/steers/{}/targets/{}/pool", s, t), pool);
    }
  }
  return faults;
}

bool is_on_standby(const Snapshot& snapshot, uint32_t pool, uint32_t backend) {
  const std::vector<Backend>& backends = snapshot.model->pools[pool].backends;
  const Backend& server = backends[backend];
  if (!server.backup || server.found_by.empty()) return false;
  for (uint32_t b = 0; b < backends.size(); ++b) {
    const bool first = backends[b].found_by == server.found_by && !backends[b].backup;
    if (first && snapshot.usable(pool, b)) return true;
  }
  return false;
}

}  // namespace tidegate
