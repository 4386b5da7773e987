// SPDX-License-Identifier: Apache-2.0
#include "conf/found_backends.h"

#include <algorithm>
#include <utility>

#include "conf/backend_names.h"

namespace tidegate {
namespace {

bool has_a_name(const Backend& backend) { return !backend.host.empty() || !backend.srv.empty(); }

Backend found_backend(const Backend& named, const NamedEndpoint& found, uint16_t first_priority) {
  Backend server = named;
  server.host.clear();
  server.srv.clear();
  server.port = found.endpoint.port != 0 ? found.endpoint.port : named.port;
  server.addresses = {found.endpoint.address};
  server.name = found_name(named, {found.endpoint.address, server.port});
  server.weight = std::min<uint32_t>(UINT16_MAX, named.weight * found.weight);
  if (found.priority > first_priority) server.backup = true;  // RFC 2782: they serve if the others do not
  server.found_by = named.name;
  return server;
}

// Returns false if nothing was found.
bool add_found(const Backend& named, const NameBook& names, std::vector<Backend>& servers) {
  const FoundName* const found = find_name(&names, named);
  if (found == nullptr || found->endpoints.empty()) return false;
  uint16_t first_priority = UINT16_MAX;
  for (const NamedEndpoint& each : found->endpoints) first_priority = std::min(first_priority, each.priority);
  const size_t begin = servers.size();
  for (const NamedEndpoint& each : found->endpoints) {
    Backend server = found_backend(named, each, first_priority);
    // The endpoints are sorted, so a second record of the same server comes right after the first.
    if (servers.size() > begin && servers.back().name == server.name) continue;
    servers.push_back(std::move(server));
  }
  return true;
}

}  // namespace

std::vector<uint32_t> pools_looked_up(const Model& model) {
  std::vector<bool> wanted(model.pools.size(), false);
  bool any = false;
  for (size_t p = 0; p < model.pools.size(); ++p) {
    const std::vector<Backend>& backends = model.pools[p].backends;
    const bool named = std::any_of(backends.begin(), backends.end(), has_a_name);
    wanted[p] = named && model.pools[p].probe != kNone;
    any |= named;
  }
  std::vector<uint32_t> pools;
  if (!any) return pools;
  for (const Service& service : model.services) wanted[service.pool] = true;
  for (const Steer& steer : model.steers) {
    for (const SteerTarget& target : steer.targets) {
      if (target.pool() != kNone) wanted[target.pool()] = true;
    }
  }
  for (uint32_t p = 0; p < wanted.size(); ++p) {
    const std::vector<Backend>& backends = model.pools[p].backends;
    if (wanted[p] && std::any_of(backends.begin(), backends.end(), has_a_name)) pools.push_back(p);
  }
  return pools;
}

std::string found_name(const Backend& backend, const Endpoint& endpoint) {
  return backend.name + "/" + endpoint.to_string();
}

std::shared_ptr<const Model> with_found_backends(std::shared_ptr<const Model> model, const NameBook& names) {
  if (names.empty()) return model;
  std::shared_ptr<Model> changed;
  for (const uint32_t p : pools_looked_up(*model)) {
    std::vector<Backend> servers;
    bool any = false;
    for (const Backend& backend : model->pools[p].backends) {
      if (has_a_name(backend) && add_found(backend, names, servers)) {
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

}  // namespace tidegate
